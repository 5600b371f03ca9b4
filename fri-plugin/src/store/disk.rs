//! The file: functions by name, each one record of JSON, in a redb database. A transaction is written whole or not at all.

use super::error::{Damage, StoreError};
use super::record::Record;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const FUNCTIONS: TableDefinition<&str, &[u8]> = TableDefinition::new("functions");
const FORMAT_KEY: &str = "format";
/// The format that this code writes.
pub const FORMAT: u64 = 1;
/// The whole store is in memory already.
const CACHE: usize = 4 << 20;

/// An open file.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    database: Database,
}

impl Disk {
    /// Opens the file, or makes it, and reads all of it.
    pub fn open(path: &Path) -> Result<(Disk, BTreeMap<String, Record>), StoreError> {
        if !path.try_exists().map_err(|e| failed(path, e.into()))? {
            create(path)?;
        }
        // Every checksum is verified, so that a damaged file is found out now; what the database does not expect even so, it panics at.
        let disk = guarded(path, || {
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
            let database = open(&builder, path).map_err(|e| failed(path, e.into()))?;
            Ok(Disk { path: path.to_owned(), database })
        })?;
        let records = guarded(path, || disk.read())?;
        Ok((disk, records))
    }

    fn read(&self) -> Result<BTreeMap<String, Record>, StoreError> {
        let path = &self.path;
        let corrupt = |source| StoreError::Corrupt { path: path.clone(), source };
        let transaction = self.database.begin_read().map_err(|e| failed(path, e.into()))?;
        let meta = transaction.open_table(META).map_err(|e| failed(path, e.into()))?;
        let found = meta.get(FORMAT_KEY).map_err(|e| failed(path, e.into()))?.map_or(0, |v| v.value());
        if found != FORMAT {
            return Err(StoreError::Format { path: path.clone(), found, known: FORMAT });
        }
        let table = transaction.open_table(FUNCTIONS).map_err(|e| failed(path, e.into()))?;
        let mut records = BTreeMap::new();
        for entry in table.iter().map_err(|e| failed(path, e.into()))? {
            let (name, bytes) = entry.map_err(|e| failed(path, e.into()))?;
            let name = name.value().to_owned();
            let record: Record = serde_json::from_slice(bytes.value())
                .map_err(|source| corrupt(Damage::Record { name: name.clone(), source }))?;
            if !record.is_sound(&name) {
                return Err(corrupt(Damage::Unsound(name)));
            }
            records.insert(name, record);
        }
        Ok(records)
    }

    /// Writes records, and removes those that are `None`: all or none, and on the disk when this returns.
    pub fn write<'a>(
        &self,
        records: impl Iterator<Item = (&'a str, Option<&'a Record>)>,
    ) -> Result<(), StoreError> {
        let fail = |error: redb::Error| failed(&self.path, error);
        let transaction = self.database.begin_write().map_err(|e| fail(e.into()))?;
        {
            let mut table = transaction.open_table(FUNCTIONS).map_err(|e| fail(e.into()))?;
            for (name, record) in records {
                match record {
                    Some(record) => {
                        let bytes = serde_json::to_vec(record).map_err(|source| StoreError::Corrupt {
                            path: self.path.clone(),
                            source: Damage::Record { name: name.to_owned(), source },
                        })?;
                        table.insert(name, bytes.as_slice()).map_err(|e| fail(e.into()))?;
                    }
                    None => {
                        table.remove(name).map_err(|e| fail(e.into()))?;
                    }
                }
            }
        }
        transaction.commit().map_err(|e| fail(e.into()))
    }
}

#[cfg(not(test))]
fn open(builder: &Builder, path: &Path) -> Result<Database, redb::DatabaseError> {
    builder.open(path)
}

#[cfg(test)]
fn open(builder: &Builder, path: &Path) -> Result<Database, redb::DatabaseError> {
    super::faults::open(builder, path)
}

/// Makes an empty store under another name first: a crash leaves none, or a whole one.
fn create(path: &Path) -> Result<(), StoreError> {
    let new = path.with_extension("new");
    let make = || -> Result<(), redb::Error> {
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let database = Builder::new().set_cache_size(CACHE).create(&new)?;
        // Environments have secrets in them, and the directory may be one that others may read.
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
        transaction.open_table(FUNCTIONS)?;
        transaction.commit()?;
        drop(database);
        std::fs::rename(&new, path)?;
        if let Some(dir) = path.parent() {
            std::fs::File::open(dir)?.sync_all()?;
        }
        Ok(())
    };
    make().map_err(|error| {
        let _ = std::fs::remove_file(&new);
        failed(path, error)
    })
}

/// Turns a panic of the database into the error that it means.
fn guarded<T>(path: &Path, step: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(step))
        .unwrap_or_else(|_| Err(StoreError::Corrupt { path: path.to_owned(), source: Damage::Unreadable }))
}

/// What an error of the database means to an operator.
fn failed(path: &Path, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked { path },
        redb::Error::Io(ref e)
            if matches!(
                e.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
            ) =>
        {
            StoreError::Full { path, source: Box::new(error) }
        }
        // What is no database, or a cut one, is found by its first bytes or by reading past its end.
        redb::Error::Io(ref e) if matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            StoreError::Corrupt { path, source: Damage::Database(Box::new(error)) }
        }
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => {
            StoreError::Corrupt { path, source: Damage::Database(Box::new(error)) }
        }
        error => StoreError::Host { path, source: Box::new(error) },
    }
}
