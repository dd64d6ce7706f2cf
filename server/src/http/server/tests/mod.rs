//! Tests of the server over real sockets, with an example model.

mod embeddings_route;
mod management_port;
mod monitoring_routes;
mod native_routes;
mod request_limits;
mod task_routes;
mod test_server;
mod ui_routes;
mod unbatched_tasks;
mod v1_routes;
mod v2_routes;
