//! The server over real sockets, with a model that is made up here.

mod embeddings;
mod fixture;
mod info;
mod limits;
mod predict;
mod unbatched;
mod v1;
mod v2;
