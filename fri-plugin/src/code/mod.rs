//! Code of functions and layers.

mod digest;

pub use digest::{Digest, DigestError};
