//! The methods by name, and one adapter for each kind of them.

use crate::fri::error::FriError;
use crate::fri::service::{Incoming, Outgoing, Service};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use prost::Message;
use prost::bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A message for a message.
type One = Box<dyn Fn(Service, Bytes) -> BoxFuture<'static, Result<Bytes, FriError>> + Send + Sync>;
/// A message, or a stream of them, for a stream.
type Many = Box<
    dyn Fn(Service, Incoming<Bytes>) -> BoxFuture<'static, Result<Outgoing<Bytes>, FriError>> + Send + Sync,
>;

/// How a method is called.
pub enum Method {
    /// With one message, for one.
    Unary(One),
    /// With one message, for a stream.
    Server(Many),
    /// With a stream, for a stream.
    Duplex(Many),
}

fn decode<Q: Message + Default>(bytes: Bytes) -> Result<Q, FriError> {
    Q::decode(bytes).map_err(|error| FriError::Undecodable(error.to_string()))
}

fn encode<P: Message>(message: &P) -> Bytes {
    message.encode_to_vec().into()
}

fn unary<Q, P, F>(method: impl Fn(Service, Q) -> F + Clone + Send + Sync + 'static) -> Method
where
    Q: Message + Default + 'static,
    P: Message + 'static,
    F: Future<Output = Result<P, FriError>> + Send + 'static,
{
    Method::Unary(Box::new(move |service, bytes| {
        let method = method.clone();
        async move { Ok(encode(&method(service, decode(bytes)?).await?)) }.boxed()
    }))
}

fn server<Q, P>(method: impl Fn(Service, Q) -> Outgoing<P> + Clone + Send + Sync + 'static) -> Method
where
    Q: Message + Default + 'static,
    P: Message + 'static,
{
    Method::Server(Box::new(move |service, mut input| {
        let method = method.clone();
        async move {
            let Some(bytes) = input.next().await else {
                return Err(FriError::Malformed("the call has no message"));
            };
            Ok(outgoing(method(service, decode(bytes?)?)))
        }
        .boxed()
    }))
}

fn duplex<Q, P, F>(method: impl Fn(Service, Incoming<Q>) -> F + Clone + Send + Sync + 'static) -> Method
where
    Q: Message + Default + 'static,
    P: Message + 'static,
    F: Future<Output = Result<Outgoing<P>, FriError>> + Send + 'static,
{
    Method::Duplex(Box::new(move |service, input| {
        let method = method.clone();
        let input = input.map(|bytes| decode(bytes?)).boxed();
        async move { Ok(outgoing(method(service, input).await?)) }.boxed()
    }))
}

fn outgoing<P: Message + 'static>(stream: Outgoing<P>) -> Outgoing<Bytes> {
    stream.map(|message| Ok(encode(&message?))).boxed()
}

/// Every method, as SERVICE/NAME.
static METHODS: LazyLock<BTreeMap<String, Method>> = LazyLock::new(|| {
    const FUNCTIONS: &str = "coppice.fri.v1.Functions";
    const SEEDS: &str = "coppice.fri.v1.Seeds";
    const INSTANCES: &str = "coppice.fri.v1.Instances";
    const NODE: &str = "coppice.fri.v1.Node";
    let methods = [
        ((FUNCTIONS, "Deploy"), duplex(|s, q| async move { Ok(s.deploy(q)) })),
        ((FUNCTIONS, "Get"), unary(|s, q| async move { s.function(q).await })),
        ((FUNCTIONS, "List"), unary(|s, q| async move { s.functions(q).await })),
        ((FUNCTIONS, "Remove"), unary(|s, q| async move { s.remove(q).await })),
        ((FUNCTIONS, "Rollback"), server(|s, q| s.rollback(q))),
        ((FUNCTIONS, "Logs"), server(|s, q| s.logs(q))),
        ((SEEDS, "Create"), unary(|s, q| async move { s.create_seed(q).await })),
        ((SEEDS, "List"), unary(|s, q| async move { s.seeds(q).await })),
        ((SEEDS, "Watch"), server(|s, q| s.watch(q))),
        ((SEEDS, "Delete"), unary(|s, q| async move { s.delete_seed(q).await })),
        ((SEEDS, "Prewarm"), unary(|s, q| async move { s.prewarm(q).await })),
        ((INSTANCES, "Fork"), unary(|s, q| async move { s.fork(q).await })),
        ((INSTANCES, "Activate"), duplex(|s, q| async move { s.activate(q).await })),
        ((INSTANCES, "Invoke"), duplex(|s, q| async move { s.invoke(q).await })),
        ((INSTANCES, "Destroy"), unary(|s, q| async move { s.destroy(q).await })),
        ((INSTANCES, "List"), unary(|s, q| async move { s.instances(q).await })),
        ((NODE, "Status"), unary(|s, q| async move { s.status(q).await })),
        ((NODE, "Pools"), unary(|s, q| async move { s.pools(q).await })),
        ((NODE, "Drain"), unary(|s, q| async move { s.drain(q).await })),
    ];
    methods.into_iter().map(|((service, name), method)| (format!("{service}/{name}"), method)).collect()
});

/// A method by its name.
pub fn named(service: &str, method: &str) -> Result<&'static Method, FriError> {
    let name = format!("{service}/{method}");
    METHODS.get(&name).ok_or(FriError::NoSuchMethod(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_methods_of_the_protocol_and_no_others() {
        let text = include_str!("../../../proto/coppice/fri/v1/fri.proto");
        let mut wanted = Vec::new();
        let mut service = String::new();
        for line in text.lines() {
            let word = |after: &str| {
                let rest = line.trim().strip_prefix(after)?;
                Some(rest.split(['(', ' ']).next().unwrap_or_default().to_owned())
            };
            if let Some(name) = word("service ") {
                service = format!("coppice.fri.v1.{name}");
            }
            if let Some(name) = word("rpc ") {
                let streams =
                    line.split(") returns (").map(|half| half.contains("stream ")).collect::<Vec<_>>();
                wanted.push((format!("{service}/{name}"), streams));
            }
        }
        assert!(wanted.len() > 10);
        let kinds = |method: &Method| match method {
            Method::Unary(_) => vec![false, false],
            Method::Server(_) => vec![false, true],
            Method::Duplex(_) => vec![true, true],
        };
        let found: Vec<_> = METHODS.iter().map(|(name, method)| (name.clone(), kinds(method))).collect();
        wanted.sort();
        assert_eq!(found, wanted);
        assert!(named("coppice.fri.v1.Node", "None").is_err() && named("", "").is_err());
    }
}
