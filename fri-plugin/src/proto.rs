//! The messages and the gRPC services of the Function Runtime Interface, as `proto/coppice/fri/v1/fri.proto` describes them.
#![allow(missing_docs, clippy::all)] // generated

tonic::include_proto!("coppice.fri.v1");

/// JSON text in JSON, as text.
fn text<S: serde::Serializer>(bytes: &prost::bytes::Bytes, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&String::from_utf8_lossy(bytes))
}
