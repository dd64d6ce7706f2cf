//! The live view: the table of models, the explanation of the selected one, and the keys.

use std::pin::Pin;
use std::time::Duration;

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table, TableState, Wrap};
use ratatui::{DefaultTerminal, Frame};
use tokio::signal::unix::{SignalKind, signal};

use super::error::StatusError;
use super::reply::{ModelStatus, ServerStatus};
use super::source::Source;
use super::table::{HEADER, LEFT, cells, headline, sentence};
use crate::error::Chain;

/// Width of the columns after the name of the model.
const WIDTHS: [u16; HEADER.len() - 1] = [11, 4, 7, 8, 8, 7, 5, 5, 6];

/// Shows the state of the server until the user quits or a termination signal arrives.
pub(super) async fn run(source: &Source, interval: Duration) -> Result<(), StatusError> {
    let mut terminal = ratatui::try_init().map_err(StatusError::Terminal)?;
    let result = watch(&mut terminal, source, interval).await;
    let restored = ratatui::try_restore().map_err(StatusError::Terminal);
    result.and(restored)
}

async fn watch(
    terminal: &mut DefaultTerminal,
    source: &Source,
    interval: Duration,
) -> Result<(), StatusError> {
    let mut terminated = signal(SignalKind::terminate()).map_err(StatusError::Terminal)?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(StatusError::Terminal)?;
    let mut events = EventStream::new();
    let mut screen = Screen::new(source.url());
    let mut next = refresh(source, Duration::ZERO);
    loop {
        let drawn = terminal.draw(|frame| screen.draw(frame));
        drawn.map_err(StatusError::Terminal)?;
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if screen.press(key) == Pressed::Quit => return Ok(()),
                // A change of the size is drawn by the next round.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(StatusError::Terminal(error)),
                None => return Ok(()),
            },
            result = &mut next => {
                screen.update(result);
                next = refresh(source, interval);
            }
            _ = terminated.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
        }
    }
}

/// Reads the state after a delay.
fn refresh(
    source: &Source,
    delay: Duration,
) -> Pin<Box<dyn Future<Output = Result<ServerStatus, StatusError>> + '_>> {
    Box::pin(async move {
        tokio::time::sleep(delay).await;
        source.read().await
    })
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pressed {
    Quit,
    Other,
}

/// What is shown.
struct Screen {
    url: String,
    /// The latest state; `None` until there is one.
    status: Option<ServerStatus>,
    /// Why the latest request failed.
    failure: Option<String>,
    table: TableState,
}

impl Screen {
    fn new(url: String) -> Self {
        Self {
            url,
            status: None,
            failure: None,
            table: TableState::default().with_selected(0),
        }
    }

    /// Shows a new state. If there is none, the previous one remains visible, with the error.
    fn update(&mut self, result: Result<ServerStatus, StatusError>) {
        match result {
            Ok(status) => {
                self.status = Some(status);
                self.failure = None;
            }
            Err(error) => self.failure = Some(Chain(&error).to_string()),
        }
    }

    fn press(&mut self, key: KeyEvent) -> Pressed {
        if key.kind == KeyEventKind::Release {
            return Pressed::Other;
        }
        let last = self.models().len().saturating_sub(1);
        let selected = self.table.selected().unwrap_or_default().min(last);
        let selected = match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Pressed::Quit,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Pressed::Quit,
            KeyCode::Up | KeyCode::Char('k') => selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => (selected + 1).min(last),
            KeyCode::Home => 0,
            KeyCode::End => last,
            _ => selected,
        };
        self.table.select(Some(selected));
        Pressed::Other
    }

    fn models(&self) -> &[ModelStatus] {
        self.status.as_ref().map_or(&[], |status| &status.models)
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let models = u16::try_from(self.models().len()).unwrap_or(u16::MAX);
        let [head, table, explanation, keys] = Layout::vertical([
            Constraint::Length(1),
            // The header and the models, but never without room for the explanation.
            Constraint::Max(models.saturating_add(2)),
            Constraint::Min(4),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(self.headline()), head);
        self.draw_table(frame, table);
        self.draw_explanation(frame, explanation);
        let text = "q quit   ↑ ↓ select a model   figures: last 10 s   explanation: last minute";
        frame.render_widget(Paragraph::new(text).dim(), keys);
    }

    fn headline(&self) -> Line<'_> {
        match (&self.failure, &self.status) {
            (Some(failure), _) => Line::from(failure.as_str()).fg(Color::Red),
            (None, None) => Line::from(format!("connecting to {}", self.url)),
            (None, Some(status)) => Line::from(headline(status)).fg(color(status.ready)),
        }
    }

    fn draw_table(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let rows: Vec<Row<'_>> = self.models().iter().map(row).collect();
        let widths = WIDTHS.map(Constraint::Length);
        let widths = std::iter::once(Constraint::Min(12)).chain(widths);
        let header = HEADER
            .iter()
            .enumerate()
            .map(|(column, name)| cell(column, (*name).to_owned()));
        let table = Table::new(rows, widths)
            .header(Row::new(header).bold().top_margin(1))
            .row_highlight_style(Style::new().reversed());
        frame.render_stateful_widget(table, area, &mut self.table);
    }

    fn draw_explanation(&self, frame: &mut Frame<'_>, area: Rect) {
        let selected = self.table.selected().and_then(|index| self.models().get(index));
        let (title, lines) = match selected {
            None => (String::new(), Vec::new()),
            Some(model) if model.explanation.is_empty() => (
                format!(" {} ", cells(model)[0]),
                vec![Line::from("nothing to explain")],
            ),
            Some(model) => (
                format!(" {} ", cells(model)[0]),
                model
                    .explanation
                    .iter()
                    .map(|finding| Line::from(sentence(finding)))
                    .collect(),
            ),
        };
        let text = Paragraph::new(Text::from(lines))
            .wrap(Wrap { trim: true })
            .block(Block::new().borders(Borders::TOP).title(title));
        frame.render_widget(text, area);
    }
}

fn row(model: &ModelStatus) -> Row<'static> {
    let cells = cells(model)
        .into_iter()
        .enumerate()
        .map(|(column, text)| match column {
            1 => cell(column, text).style(Style::new().fg(color(model.ready))),
            _ => cell(column, text),
        });
    Row::new(cells)
}

fn cell(column: usize, text: String) -> Cell<'static> {
    let alignment = if column < LEFT {
        Alignment::Left
    } else {
        Alignment::Right
    };
    Cell::from(Text::from(text).alignment(alignment))
}

fn color(ready: bool) -> Color {
    if ready { Color::Green } else { Color::Yellow }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::client::QueryError;
    use crate::status::reply::tests::example;

    fn drawn(screen: &mut Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory");
        terminal
            .draw(|frame| screen.draw(frame))
            .expect("it can be drawn");
        terminal.backend().to_string()
    }

    fn example_screen() -> Screen {
        let mut screen = Screen::new("http://gpu-7:8080".to_owned());
        screen.update(Ok(example()));
        screen
    }

    fn press(screen: &mut Screen, code: KeyCode) -> Pressed {
        screen.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn the_screen_has_the_models_and_the_explanation_of_the_selected_one() {
        let mut screen = example_screen();
        insta::assert_snapshot!("models", drawn(&mut screen, 90, 14));
        press(&mut screen, KeyCode::Down);
        insta::assert_snapshot!("the_second_model", drawn(&mut screen, 90, 14));
    }

    #[test]
    fn the_selection_stays_within_the_models() {
        let mut screen = example_screen();
        for (key, selected) in [
            (KeyCode::Up, 0),
            (KeyCode::Down, 1),
            (KeyCode::Down, 1),
            (KeyCode::Home, 0),
            (KeyCode::End, 1),
            (KeyCode::Char('k'), 0),
        ] {
            assert_eq!(press(&mut screen, key), Pressed::Other);
            assert_eq!(screen.table.selected(), Some(selected), "{key:?}");
        }
        let mut fewer = example();
        fewer.models.truncate(1);
        press(&mut screen, KeyCode::End);
        screen.update(Ok(fewer));
        assert!(drawn(&mut screen, 90, 14).contains("minilm"));
    }

    #[test]
    fn q_escape_and_control_c_quit() {
        let mut screen = example_screen();
        assert_eq!(press(&mut screen, KeyCode::Char('q')), Pressed::Quit);
        assert_eq!(press(&mut screen, KeyCode::Esc), Pressed::Quit);
        assert_eq!(press(&mut screen, KeyCode::Char('c')), Pressed::Other);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(screen.press(control_c), Pressed::Quit);
    }

    #[test]
    fn the_latest_state_remains_visible_when_the_server_cannot_be_reached() {
        let mut screen = Screen::new("http://gpu-7:8080".to_owned());
        assert!(drawn(&mut screen, 90, 10).contains("connecting to http://gpu-7:8080"));
        screen.update(Ok(example()));
        let no_server = QueryError::NoServer {
            url: "http://gpu-7:8080".to_owned(),
            why: "connection refused".to_owned(),
        };
        screen.update(Err(no_server.into()));
        let text = drawn(&mut screen, 90, 14);
        assert!(
            text.contains("connection refused") && text.contains("minilm"),
            "{text}"
        );
    }

    #[test]
    fn every_size_of_a_terminal_can_be_drawn() {
        let mut screen = example_screen();
        for width in [1, 5, 40, 200] {
            for height in [1, 3, 6, 60] {
                drawn(&mut screen, width, height);
            }
        }
    }
}
