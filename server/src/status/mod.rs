//! `inference-server status`: shows the state of a server, live in a terminal or once as a table or JSON.
//!
//! This is an ordinary HTTP client of `/readyz` and `/v1/models`, which only shares the foundation layer with the server, and
//! `client` with other commands. Everything runs on one thread.

mod args;
mod error;
mod reply;
mod screen;
mod source;
mod table;

use std::io::IsTerminal as _;

pub use args::StatusArgs;
pub use error::StatusError;

use crate::console;
use reply::ServerStatus;
use source::Source;

/// Runs the command: until the user quits if standard input and output are a terminal, otherwise once.
///
/// # Errors
/// The server cannot be reached, or it is not ready and its state was printed.
pub fn run(args: &StatusArgs) -> Result<(), StatusError> {
    let source = Source::new(args)?;
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StatusError::Runtime)?;
    let work = async {
        if is_terminal && !args.json {
            return screen::run(&source, args.interval).await;
        }
        let status = source.read().await?;
        let text = match args.json {
            true => serde_json::to_string_pretty(&status).map_err(StatusError::Json)?,
            false => table::of_status(&status),
        };
        console::print(&format!("{text}\n")).map_err(StatusError::Output)?;
        check_ready(&status)
    };
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

fn check_ready(status: &ServerStatus) -> Result<(), StatusError> {
    if status.ready {
        return Ok(());
    }
    let unready = status.models.iter().filter(|model| !model.ready);
    let unready: Vec<String> = unready
        .map(|model| format!("model `{}` is {}", model.name, model.state))
        .collect();
    Err(StatusError::NotReady {
        why: match unready[..] {
            [] => "it is starting or shutting down".to_owned(),
            _ => unready.join(", "),
        },
    })
}
