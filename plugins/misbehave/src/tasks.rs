//! The tasks: `text` and `image` execute commands, `prepared` does so after a prepare step, and `tensor` doubles numbers.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plugin_sdk::prelude::*;

use crate::command::{Action, Command, Report};
use crate::{Misbehave, actions};

/// Value of the example, which identifies warm-up items.
const WARM_UP: &str = "warm-up";

/// Executes commands without a prepare step.
pub(crate) struct Commands {
    pub(crate) max_batch_size: Option<usize>,
}

impl Task<Misbehave> for Commands {
    type Input = Json<Command>;
    type Output = Json<Report>;

    fn describe(&self) -> TaskInfo {
        describe(
            "Performs the action that each item requests.",
            self.max_batch_size,
        )
    }

    fn predict(&self, model: &Misbehave, batch: Batch<Command>) -> BatchResult<Report> {
        let commands: Vec<&Command> = batch.iter().collect();
        model.run(batch.worker(), &commands)
    }
}

/// Executes commands after a prepare step.
pub(crate) struct PreparedCommands {
    pub(crate) max_batch_size: Option<usize>,
}

/// A prepared command.
pub(crate) struct PreparedCommand {
    command: Command,
    _bomb: Option<actions::Bomb>,
}

impl PreparedTask<Misbehave> for PreparedCommands {
    type Input = Json<Command>;
    type Output = Json<Report>;
    type Prepared = PreparedCommand;

    fn describe(&self) -> TaskInfo {
        describe(
            "Performs the action that each item requests, with weights and groups.",
            self.max_batch_size,
        )
    }

    fn prepare(
        &self,
        model: &Misbehave,
        item: Item<Command>,
    ) -> Result<Prepared<PreparedCommand>, ItemError> {
        actions::pause(Duration::from_millis(model.settings.prepare_ms));
        let command = item.value;
        let in_prepare = [Action::AbortInPrepare, Action::HangInPrepare].contains(&command.action);
        match if in_prepare {
            effective_action(&command)
        } else {
            command.action
        } {
            Action::FailInPrepare => return Err(ItemError::invalid(&command.message)),
            Action::AbortInPrepare => actions::abort(),
            Action::HangInPrepare => actions::hang(),
            Action::PanicInPrepare => panic!("misbehave panics in prepare: {}", command.message),
            _ => {}
        }
        let (weight, group) = (command.weight, command.group);
        let _bomb = (command.action == Action::PanicInPreparedDrop).then(|| actions::Bomb);
        Ok(Prepared::new(PreparedCommand { command, _bomb })
            .weight(weight)
            .group(group))
    }

    fn predict(&self, model: &Misbehave, batch: Batch<&PreparedCommand>) -> BatchResult<Report> {
        let commands: Vec<&Command> = batch.iter().map(|prepared| &prepared.command).collect();
        model.run(batch.worker(), &commands)
    }
}

/// Doubles the numbers of a tensor.
pub(crate) struct Double;

impl Task<Misbehave> for Double {
    type Input = Tensor;
    type Output = Tensor;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Doubles every number.")
            .input_tensor(TensorInfo::new("numbers", DType::Fp32, &[-1]))
            .output_tensor(TensorInfo::new("doubled", DType::Fp32, &[-1]))
            .example(json!({"numbers": [1.0, 2.5]}))
    }

    fn predict(&self, model: &Misbehave, batch: Batch<TensorView>) -> BatchResult<TensorOutput> {
        batch.try_map(|tensor| {
            actions::multiply(&tensor.values::<f32>()?, model.settings.multiplications);
            let doubled: Vec<f32> = tensor
                .values::<f32>()?
                .iter()
                .map(|number| number * 2.0)
                .collect();
            Ok(TensorOutput::new("doubled", &[doubled.len()], doubled))
        })
    }
}

fn describe(text: &str, max_batch_size: Option<usize>) -> TaskInfo {
    let info = TaskInfo::new(text).example(json!({"value": WARM_UP}));
    match max_batch_size {
        Some(items) => info.max_batch_size(items),
        None => info,
    }
}

impl Misbehave {
    fn run(&self, worker: usize, commands: &[&Command]) -> BatchResult<Report> {
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        let warm_up = commands.iter().all(|command| command.value == WARM_UP);
        if warm_up && self.settings.fail_warm_up {
            return Err(BatchError::failed("misbehave fails its warm-up as requested"));
        }
        if let (Some(gate), false) = (&self.settings.gate, warm_up) {
            actions::wait_for(gate);
        }
        let per_item = Duration::from_micros(self.settings.item_us);
        actions::pause(
            Duration::from_millis(self.settings.batch_ms) + per_item.saturating_mul(commands.len() as u32),
        );
        if self
            .settings
            .out_of_memory_above
            .is_some_and(|most| commands.len() > most)
        {
            return Err(BatchError::out_of_memory(format_args!(
                "{} items",
                commands.len()
            )));
        }
        let actions: Vec<Action> = commands.iter().map(|command| effective_action(command)).collect();
        for (command, action) in commands.iter().zip(&actions) {
            command.act(*action, commands.len(), self.threads)?;
        }
        let report = |command: &Command| Report {
            value: command.value.clone(),
            batch_size: commands.len(),
            order: commands.iter().map(|command| command.value.clone()).collect(),
            batch,
            worker,
            tag: self.settings.tag.clone(),
            pid: std::process::id(),
        };
        let mut outcomes: Vec<Result<Report, ItemError>> = commands
            .iter()
            .zip(&actions)
            .map(|(command, action)| match action {
                Action::FailItem => Err(ItemError::invalid(&command.message)),
                Action::FaultItem => Err(ItemError::fault(&command.message)),
                Action::Write => {
                    refused(std::fs::write(&command.path, &command.message)).map(|()| report(command))
                }
                Action::Connect => refused(TcpStream::connect(&command.message)).map(|_| report(command)),
                _ => Ok(report(command)),
            })
            .collect();
        if actions.contains(&Action::TooFew) {
            outcomes.pop();
        } else if actions.contains(&Action::TooMany) {
            // Not both in one batch, which would be the right number again.
            outcomes.push(Ok(report(commands[0])));
        }
        Ok(outcomes.into_iter().collect())
    }
}

/// Converts an error of the operating system to an error of the item.
fn refused<T>(result: io::Result<T>) -> Result<T, ItemError> {
    result.map_err(|error| ItemError::fault(format_args!("refused: {:?}", error.kind())))
}

/// Returns the action to perform for a command.
fn effective_action(command: &Command) -> Action {
    match &command.once {
        Some(path) if !actions::first_time(path) => Action::Echo,
        _ => command.action,
    }
}

impl Command {
    fn act(&self, action: Action, batch_size: usize, threads: usize) -> Result<(), BatchError> {
        let duration = Duration::from_millis(self.ms);
        match action {
            Action::Sleep => actions::pause(duration),
            Action::Busy => actions::busy(duration),
            Action::Wait => actions::wait_for(&self.path),
            Action::Hang => actions::hang(),
            Action::Log => log::info!("{}", self.message),
            Action::Describe => actions::describe(threads, &self.message),
            Action::Print => actions::print(&self.message),
            Action::Leak => actions::leak(self.bytes),
            Action::FailBatch => return Err(BatchError::failed(&self.message)),
            Action::OutOfMemory if batch_size > 1 => return Err(BatchError::out_of_memory(&self.message)),
            Action::Panic => panic!("misbehave panics: {}", self.message),
            Action::PanicTwice => actions::panic_twice(),
            Action::Exit => actions::exit(self.code),
            Action::Kill => actions::kill(),
            Action::Abort => actions::abort(),
            Action::Segfault => actions::segfault(),
            Action::StackOverflow => {
                actions::overflow_the_stack(0);
            }
            _ => {}
        }
        Ok(())
    }
}
