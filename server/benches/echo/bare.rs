//! The baselines: actix-web alone, with a handler that reads and writes the JSON of the server's task `echo`. One answers in the
//! handler; the other passes each request to a thread, which answers all requests that wait, as a server must whose HTTP threads
//! compute nothing.
//!
//! They run in a separate process of the same executable, so that their CPU time can be measured.

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::harness::server::cpu_time_of;

/// The argument with which this executable becomes the baselines.
pub(crate) const ARGUMENT: &str = "--bare";

/// The path of the baseline that answers in the handler.
pub(crate) const PATH: &str = "/echo";

/// The path of the baseline that answers in a thread.
pub(crate) const THREAD_PATH: &str = "/thread";

/// A body, with one item or with several, as the server accepts it.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Input {
    Input(String),
    Inputs(Vec<String>),
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Output {
    Output(String),
    Outputs(Vec<String>),
}

#[derive(Serialize)]
struct Reply {
    model: &'static str,
    task: &'static str,
    #[serde(flatten)]
    output: Output,
    inference_time: f64,
}

async fn echo(body: web::Json<Input>) -> HttpResponse {
    reply(body.into_inner())
}

async fn echo_in_thread(body: web::Json<Input>, thread: web::Data<Sender<Message>>) -> HttpResponse {
    let (sender, receiver) = oneshot::channel();
    let _ = thread.send((body.into_inner(), sender));
    match receiver.await {
        Ok(input) => reply(input),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

fn reply(input: Input) -> HttpResponse {
    HttpResponse::Ok().json(Reply {
        model: "template",
        task: "echo",
        output: match input {
            Input::Input(text) => Output::Output(text),
            Input::Inputs(texts) => Output::Outputs(texts),
        },
        inference_time: 0.000_016_464,
    })
}

/// A request, and where its answer is sent.
type Message = (Input, oneshot::Sender<Input>);

/// Starts the thread that answers. It stops with the server.
fn start_thread() -> Sender<Message> {
    let (sender, receiver) = crossbeam_channel::unbounded::<Message>();
    thread::spawn(move || {
        let mut batch = Vec::new();
        while let Ok(first) = receiver.recv() {
            batch.push(first);
            batch.extend(receiver.try_iter());
            for (input, answer) in batch.drain(..) {
                // The client may have left.
                let _ = answer.send(input);
            }
        }
    });
    sender
}

/// Serves until standard input ends, which it does when the parent exits.
#[allow(clippy::print_stdout, reason = "the parent reads the address")]
pub(crate) fn serve() -> std::io::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let thread = web::Data::new(start_thread());
            let app = move || {
                let limit = web::JsonConfig::default().limit(1 << 26);
                App::new()
                    .app_data(limit)
                    .app_data(thread.clone())
                    .route(PATH, web::post().to(echo))
                    .route(THREAD_PATH, web::post().to(echo_in_thread))
            };
            let server = HttpServer::new(app)
                .bind((Ipv4Addr::LOCALHOST, 0))?
                .disable_signals();
            println!("{}", server.addrs()[0]);
            let server = server.run();
            let handle = server.handle();
            thread::spawn(move || {
                let _ = std::io::stdin().read_to_end(&mut Vec::new());
                drop(handle.stop(false));
            });
            server.await
        })
}

/// The running baseline. It is killed when dropped.
pub(crate) struct Bare {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Bare {
    pub(crate) fn start() -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().ok_or("the baseline has no standard output")?;
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().parse();
        let mut bare = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            child,
        };
        bare.address = address?;
        Ok(bare)
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration, Box<dyn Error>> {
        cpu_time_of(self.child.id())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // Killing a process that has exited already fails, which does no harm.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
