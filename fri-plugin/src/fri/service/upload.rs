//! Archives on their way in: written to files as they come, removed in every case.

use super::{Incoming, Uploads};
use crate::daemon::deploy::{Deployment, Source};
use crate::fri::UPLOAD;
use crate::fri::error::FriError;
use crate::proto::archive::Kind;
use crate::proto::deploy_request::Part;
use crate::proto::{DeployRequest, FunctionSpec};
use crate::room::{Full, Share};
use futures::StreamExt;
use prost::bytes::Bytes;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::{NamedTempFile, TempPath};

/// Makes the directory. What an earlier daemon has left in it is [`crate::life::Life::reconcile`]'s.
pub fn prepare(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
}

/// A function's description and archives as they came. The archives are removed when this is dropped.
#[derive(Debug)]
pub struct Received {
    pub spec: FunctionSpec,
    code: TempPath,
    layers: Vec<TempPath>,
    /// Of the bound on archives, as long as they are there.
    _shares: Vec<Share>,
}

impl Received {
    /// What is to be deployed; of use as long as this lives.
    pub fn deployment(&self) -> Deployment {
        let zip = |path: &TempPath| Source::Zip(path.to_path_buf());
        Deployment {
            spec: self.spec.clone(),
            code: zip(&self.code),
            layers: self.layers.iter().map(zip).collect(),
        }
    }
}

/// An archive that is being written.
struct Archive {
    file: NamedTempFile,
    bytes: u64,
    share: Share,
}

impl Archive {
    async fn begin(uploads: &Uploads) -> Result<Archive, FriError> {
        let directory = uploads.directory.clone();
        let made = blocking(move || tempfile::Builder::new().prefix(UPLOAD).tempfile_in(directory)).await?;
        Ok(Archive { file: made, bytes: 0, share: uploads.room.share() })
    }

    async fn write(mut self, chunk: Bytes, limit: u64) -> Result<Archive, FriError> {
        let bytes = self.bytes.saturating_add(chunk.len() as u64);
        if bytes > limit {
            return Err(FriError::TooLarge { what: "an archive", limit });
        }
        let full = |Full| FriError::NoRoom { what: "archives", key: "fri.upload_bytes" };
        self.share.add(chunk.len()).map_err(full)?;
        // Given up here, the file is removed by the thread that writes to it.
        let mut file = self.file;
        let file = blocking(move || file.write_all(&chunk).map(|()| file)).await?;
        Ok(Archive { file, bytes, share: self.share })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, FriError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| FriError::Internal)?;
    done.map_err(FriError::Upload)
}

/// Takes a deploy's messages to their end.
pub async fn receive(uploads: &Uploads, mut input: Incoming<DeployRequest>) -> Result<Received, FriError> {
    let Some(Part::Spec(spec)) = part(uploads, &mut input).await? else {
        return Err(FriError::Malformed("the first message of a deploy must be the function's description"));
    };
    let mut code = None;
    let mut layers: Vec<Archive> = Vec::new();
    let mut current = Kind::Unspecified;
    while let Some(part) = part(uploads, &mut input).await? {
        match part {
            Part::Spec(_) => {
                return Err(FriError::Malformed("a deploy has the function's description once"));
            }
            Part::Archive(archive) => {
                current = archive.kind();
                match current {
                    Kind::Code if code.is_some() => {
                        return Err(FriError::Malformed("a deploy has one archive with the function's code"));
                    }
                    Kind::Code => code = Some(Archive::begin(uploads).await?),
                    Kind::Layer if layers.len() >= uploads.layers => {
                        return Err(FriError::Layers(uploads.layers));
                    }
                    Kind::Layer => layers.push(Archive::begin(uploads).await?),
                    Kind::Unspecified => return Err(FriError::Malformed("an archive is code or a layer")),
                }
            }
            Part::Chunk(chunk) => {
                let chunk = super::payload::chunk(chunk)?;
                let to = if current == Kind::Layer { layers.pop() } else { code.take() };
                let Some(archive) = to else {
                    return Err(FriError::Malformed("say what a chunk belongs to before it"));
                };
                let archive = archive.write(chunk, uploads.bytes).await?;
                if current == Kind::Layer { layers.push(archive) } else { code = Some(archive) }
            }
        }
    }
    let Some(code) = code else {
        return Err(FriError::Malformed("a deploy needs an archive with the function's code"));
    };
    let (mut paths, shares): (Vec<_>, Vec<_>) =
        layers.into_iter().chain([code]).map(|a| (a.file.into_temp_path(), a.share)).unzip();
    // It was the last.
    let code = paths.pop().ok_or(FriError::Internal)?;
    Ok(Received { spec, code, layers: paths, _shares: shares })
}

async fn part(uploads: &Uploads, input: &mut Incoming<DeployRequest>) -> Result<Option<Part>, FriError> {
    let late = FriError::TooSlow { what: "the deploy's next message", key: "fri.upload_timeout_ms" };
    match tokio::time::timeout(uploads.patience, input.next()).await.map_err(|_| late)? {
        None => Ok(None),
        Some(Err(error)) => Err(error),
        Some(Ok(request)) => match request.part {
            Some(part) => Ok(Some(part)),
            None => Err(FriError::Malformed("a message of a deploy has nothing in it")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;
    use crate::room::Room;
    use futures::stream;

    fn archive(kind: Kind) -> Part {
        Part::Archive(proto::Archive { kind: kind.into() })
    }

    fn chunk(bytes: &'static [u8]) -> Part {
        Part::Chunk(Bytes::from_static(bytes))
    }

    fn uploads(dir: &Path) -> Uploads {
        let patience = std::time::Duration::from_millis(500);
        Uploads { directory: dir.to_owned(), bytes: 8, layers: 2, room: Room::new(12), patience }
    }

    async fn received(dir: &Path, parts: Vec<Option<Part>>) -> Result<Received, FriError> {
        let uploads = uploads(dir);
        let input = parts.into_iter().map(|part| Ok(DeployRequest { part }));
        receive(&uploads, stream::iter(input).boxed()).await
    }

    fn left(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[tokio::test]
    async fn archives_are_kept_as_they_came_and_removed_with_the_deploy() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        let spec = || Some(Part::Spec(FunctionSpec::default()));
        let parts = vec![
            spec(),
            Some(archive(Kind::Layer)),
            Some(chunk(b"L1")),
            Some(archive(Kind::Code)),
            Some(chunk(b"co")),
            Some(chunk(b"de")),
            Some(archive(Kind::Layer)),
        ];
        let received = received(dir.path(), parts).await.unwrap();
        assert_eq!(std::fs::read(&received.code).unwrap(), b"code");
        let layers: Vec<_> = received.layers.iter().map(|l| std::fs::read(l).unwrap()).collect();
        assert_eq!(layers, [b"L1".to_vec(), b"".to_vec()]);
        assert_eq!(left(dir.path()), 3);
        drop(received);
        assert_eq!(left(dir.path()), 0);
    }

    #[tokio::test]
    async fn what_is_out_of_order_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let spec = || Some(Part::Spec(FunctionSpec::default()));
        let (code, layer) = (|| Some(archive(Kind::Code)), || Some(archive(Kind::Layer)));
        let bad = vec![
            (vec![], "Request.Malformed"),
            (vec![None], "Request.Malformed"),
            (vec![code()], "Request.Malformed"),
            (vec![spec()], "Request.Malformed"),
            (vec![spec(), layer()], "Request.Malformed"),
            (vec![spec(), Some(chunk(b"x"))], "Request.Malformed"),
            (vec![spec(), code(), spec()], "Request.Malformed"),
            (vec![spec(), code(), code()], "Request.Malformed"),
            (vec![spec(), code(), None], "Request.Malformed"),
            (vec![spec(), code(), Some(archive(Kind::Unspecified))], "Request.Malformed"),
            (vec![spec(), code(), Some(chunk(b"12345678")), Some(chunk(b"9"))], "Request.TooLarge"),
            (vec![spec(), layer(), layer(), layer()], "Code.TooManyLayers"),
        ];
        for (n, (parts, wanted)) in bad.into_iter().enumerate() {
            assert_eq!(received(dir.path(), parts).await.unwrap_err().code(), wanted, "case {n}");
            assert_eq!(left(dir.path()), 0, "case {n}");
        }
    }

    #[tokio::test]
    async fn a_client_that_goes_away_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = uploads(dir.path());
        let parts = [Part::Spec(FunctionSpec::default()), archive(Kind::Code), chunk(b"x")];
        let input = stream::iter(parts.map(|part| Ok(DeployRequest { part: Some(part) })));
        let forever = input.chain(stream::pending()).boxed();
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(100), receive(&uploads, forever));
        assert!(waiting.await.is_err());
        assert_eq!(left(dir.path()), 0);
        assert_eq!(uploads.room.free(), 12);
    }

    #[tokio::test]
    async fn an_archive_that_stalls_is_ended_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = uploads(dir.path());
        let parts = [Part::Spec(FunctionSpec::default()), archive(Kind::Code), chunk(b"x")];
        let input = stream::iter(parts.map(|part| Ok(DeployRequest { part: Some(part) })));
        let error = receive(&uploads, input.chain(stream::pending()).boxed()).await.unwrap_err();
        assert_eq!(error.code(), "Request.TooSlow");
        assert_eq!((left(dir.path()), uploads.room.free()), (0, 12));
    }

    #[tokio::test]
    async fn archives_on_disk_share_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = uploads(dir.path());
        let deploy = || {
            let parts = [Part::Spec(FunctionSpec::default()), archive(Kind::Code), chunk(b"12345678")];
            receive(&uploads, stream::iter(parts.map(|part| Ok(DeployRequest { part: Some(part) }))).boxed())
        };
        let first = deploy().await.unwrap();
        let error = deploy().await.unwrap_err();
        assert_eq!((error.code(), error.status()), ("Node.Overloaded", tonic::Code::ResourceExhausted));
        assert_eq!(left(dir.path()), 1);
        drop(first);
        assert_eq!(uploads.room.free(), 12);
        drop(deploy().await.unwrap());
        assert_eq!(left(dir.path()), 0);
    }
}
