//! The messages and the gRPC services of the Function Runtime Interface, as `proto/coppice/fri/v1/fri.proto` describes them.
#![allow(missing_docs, clippy::all)] // generated

tonic::include_proto!("coppice.fri.v1");
