//! Parses the configuration file and reports all of its errors.
//!
//! A syntax error does not stop the parser. What it recovers is checked as well, except for errors that the syntax error may
//! have caused.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::checks;
use super::document::Document;
use super::env_table::EnvTable;
use super::error::{ConfigError, Location, Origin, alternatives};
use super::keys::{
    WrittenBatching, WrittenEmbeddings, WrittenJobs, WrittenLogging, WrittenMetrics, WrittenModel,
    WrittenServer, WrittenTask, WrittenTls, WrittenTracing,
};
use super::plugin_settings::PluginSettings;
use super::rule::{Mismatch, Written};
use super::section::{KeyDefault, Located, Section};
use crate::suggest::nearest;

/// The written values of the file.
pub(super) struct WrittenFile {
    pub(super) server: WrittenServer,
    pub(super) tls: WrittenTls,
    pub(super) logging: WrittenLogging,
    pub(super) tracing: WrittenTracing,
    pub(super) metrics: WrittenMetrics,
    pub(super) jobs: WrittenJobs,
    pub(super) batching: WrittenBatching,
    pub(super) models: Vec<ModelTable>,
}

/// The written values of one `[[models]]`.
pub(super) struct ModelTable {
    pub(super) header: Location,
    pub(super) keys: WrittenModel,
    pub(super) batching: WrittenBatching,
    pub(super) embeddings: WrittenEmbeddings,
    pub(super) tasks: Vec<TaskTable>,
    pub(super) settings: PluginSettings,
    pub(super) env: Option<EnvTable>,
}

/// The written values of one `[models.tasks.…]`.
pub(super) struct TaskTable {
    pub(super) header: Location,
    pub(super) name: String,
    pub(super) batching: WrittenBatching,
    pub(super) route: Option<Located<String>>,
}

/// Reads the whole file and adds its errors to `errors`.
pub(super) fn read(document: &Document<'_>, errors: &mut Vec<ConfigError>) -> WrittenFile {
    parse(document, errors, |reader, root| reader.root(root))
}

/// Parses a file, and reads what can be read even if there are syntax errors.
pub(super) fn parse<T>(
    document: &Document<'_>,
    errors: &mut Vec<ConfigError>,
    read: impl FnOnce(&mut Reader<'_, '_>, &DeTable<'_>) -> T,
) -> T {
    let (root, syntax_errors) = DeTable::parse_recoverable(document.text());
    let mut broken_lines = Vec::new();
    for syntax in &syntax_errors {
        let error = syntax_error(document, syntax);
        if let Origin::File(location) = &error.origin {
            broken_lines.push(location.line);
        }
        errors.push(error);
    }
    let mut reader = Reader {
        document,
        broken_lines,
        errors,
    };
    read(&mut reader, root.get_ref())
}

fn syntax_error(document: &Document<'_>, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or(0..0);
    let written = document.text().get(span.clone()).unwrap_or("").trim();
    let parser_message = error.message();
    let is_header = document
        .text()
        .get(..span.start)
        .is_some_and(|before| before.trim_end().ends_with('['));
    let (what, hint) = match parser_message.split(',').next().unwrap_or_default() {
        "string values must be quoted" if written.is_empty() => (
            "missing value".to_owned(),
            Some("add a value after `=`, or remove the line".to_owned()),
        ),
        "string values must be quoted" if document.is_secret(span.start) => (
            "unquoted string".to_owned(),
            Some("put the string in quotes".to_owned()),
        ),
        "string values must be quoted" => {
            ("unquoted string".to_owned(), Some(format!("write \"{written}\"")))
        }
        "duplicate key" => {
            let hint = if is_header {
                "merge the two tables; every model starts with its own [[models]]"
            } else {
                "remove one of the two"
            };
            (format!("duplicate key `{written}`"), Some(hint.to_owned()))
        }
        "invalid boolean" => (
            parser_message.to_owned(),
            Some("write true or false, in lower case".to_owned()),
        ),
        "key with no value" => (
            parser_message.to_owned(),
            Some("write `key = value`, or [name] for a table".to_owned()),
        ),
        "invalid basic string" | "invalid literal string" => {
            let hint = "close the string with the quote that opens it, on the same line";
            (parser_message.to_owned(), Some(hint.to_owned()))
        }
        _ => (parser_message.to_owned(), None),
    };
    document.error(&span, format!("invalid TOML: {what}"), hint)
}

/// A table: its place as messages name it, and the tables that it can contain.
pub(super) struct Level<'a> {
    pub(super) place: &'a str,
    pub(super) tables: &'a [&'a str],
    /// Whether it is a table of the configuration, where an unknown key may belong in another table.
    pub(super) is_configuration: bool,
}

/// Reads the tables of a file, and collects their errors.
pub(super) struct Reader<'a, 'd> {
    pub(super) document: &'a Document<'d>,
    /// Lines with a syntax error, whose other errors are probably caused by it.
    pub(super) broken_lines: Vec<usize>,
    errors: &'a mut Vec<ConfigError>,
}

impl Reader<'_, '_> {
    fn root(&mut self, root: &DeTable<'_>) -> WrittenFile {
        let level = Level {
            place: "at the top level",
            tables: &[
                "server", "logging", "tracing", "metrics", "jobs", "batching", "models",
            ],
            is_configuration: true,
        };
        // After a broken header, the parser assigns its keys to the top level.
        if self.broken_lines.is_empty() {
            self.section(root, &level, &mut []);
        }
        let (server, tls) = self.server(root);
        let mut logging = WrittenLogging::empty();
        let mut tracing = WrittenTracing::empty();
        let mut metrics = WrittenMetrics::empty();
        let mut jobs = WrittenJobs::empty();
        let mut batching = WrittenBatching::empty();
        self.subsection(root, "logging", "[logging]", &mut [&mut logging]);
        self.subsection(root, "tracing", "[tracing]", &mut [&mut tracing]);
        self.subsection(root, "metrics", "[metrics]", &mut [&mut metrics]);
        self.subsection(root, "jobs", "[jobs]", &mut [&mut jobs]);
        self.subsection(root, "batching", "[batching]", &mut [&mut batching]);
        WrittenFile {
            server,
            tls,
            logging,
            tracing,
            metrics,
            jobs,
            batching,
            models: self.models(root),
        }
    }

    fn server(&mut self, root: &DeTable<'_>) -> (WrittenServer, WrittenTls) {
        let (mut server, mut tls) = (WrittenServer::empty(), WrittenTls::empty());
        if let Some((_, table)) = self.table(root, "server", "[server]") {
            let level = Level {
                place: "in [server]",
                tables: &["tls"],
                is_configuration: true,
            };
            self.section(table, &level, &mut [&mut server]);
            self.subsection(table, "tls", "[server.tls]", &mut [&mut tls]);
        }
        (server, tls)
    }

    fn models(&mut self, root: &DeTable<'_>) -> Vec<ModelTable> {
        let Some(value) = root.get("models") else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            let hint = "start each model with [[models]], in double brackets";
            self.wrong_type(value, "value for `models`", "a list of tables", Some(hint));
            return Vec::new();
        };
        let mut models = Vec::new();
        for element in array.iter() {
            match element.get_ref().as_table() {
                Some(table) => models.push(self.model(table, &element.span())),
                None => self.wrong_type(
                    element,
                    "element of `models`",
                    "a table",
                    Some("write it as [[models]]"),
                ),
            }
        }
        models
    }

    fn model(&mut self, table: &DeTable<'_>, header: &Range<usize>) -> ModelTable {
        let level = Level {
            place: "in [[models]]",
            tables: &["batching", "embeddings", "tasks", "settings", "env"],
            is_configuration: true,
        };
        let mut keys = WrittenModel::empty();
        let mut batching = WrittenBatching::empty();
        self.section(table, &level, &mut [&mut keys]);
        self.required(table, header, WrittenModel::KEYS, level.place);
        self.subsection(table, "batching", "[models.batching]", &mut [&mut batching]);
        let mut embeddings = WrittenEmbeddings::empty();
        self.subsection(table, "embeddings", "[models.embeddings]", &mut [&mut embeddings]);
        let settings = match self.table(table, "settings", "[models.settings]") {
            Some((span, settings)) => PluginSettings::read(self.document, &span, settings, self.errors),
            None => PluginSettings::empty(),
        };
        let env = self
            .table(table, "env", "[models.env]")
            .map(|(span, variables)| EnvTable::read(self.document, &span, variables, self.errors));
        let header = self.document.locate(header.start);
        ModelTable {
            header,
            keys,
            batching,
            embeddings,
            tasks: self.tasks(table),
            settings,
            env,
        }
    }

    fn tasks(&mut self, model: &DeTable<'_>) -> Vec<TaskTable> {
        let Some((_, tables)) = self.table(model, "tasks", "[models.tasks]") else {
            return Vec::new();
        };
        let mut tasks = Vec::new();
        for (key, value) in tables.iter() {
            let name = key.get_ref().to_string();
            let title = format!("[models.tasks.{name}]");
            if let Err(hint) = checks::name(&name) {
                let message = format!(
                    "invalid task name {name:?} in {title}: expected {}",
                    checks::NAME.expected
                );
                self.errors
                    .push(self.document.error(&key.span(), message, Some(hint)));
            }
            let mut batching = WrittenBatching::empty();
            let mut keys = WrittenTask::empty();
            match value.get_ref().as_table() {
                Some(table) => {
                    let level = Level {
                        place: &format!("in {title}"),
                        tables: &[],
                        is_configuration: true,
                    };
                    self.section(table, &level, &mut [&mut batching, &mut keys]);
                }
                None => {
                    let hint = "name the task in the header, such as [models.tasks.text]";
                    self.wrong_type(
                        value,
                        &format!("value for `{name}` in [models.tasks]"),
                        "a table",
                        Some(hint),
                    );
                }
            }
            let header = self.document.locate(key.span().start);
            tasks.push(TaskTable {
                header,
                name,
                batching,
                route: keys.route,
            });
        }
        tasks
    }

    /// The table `name` inside `parent`. `None` if there is none, or if it is not a table, which is reported.
    fn table<'t, 'i>(
        &mut self,
        parent: &'t DeTable<'i>,
        name: &str,
        title: &str,
    ) -> Option<(Range<usize>, &'t DeTable<'i>)> {
        let value = parent.get(name)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            let hint = value
                .get_ref()
                .is_array()
                .then_some("write its header in single brackets");
            self.wrong_type(value, &format!("value for {title}"), "a table", hint);
        }
        table.map(|table| (value.span(), table))
    }

    fn subsection(
        &mut self,
        parent: &DeTable<'_>,
        name: &str,
        title: &str,
        sections: &mut [&mut dyn Section],
    ) {
        if let Some((_, table)) = self.table(parent, name, title) {
            self.section(
                table,
                &Level {
                    place: &format!("in {title}"),
                    tables: &[],
                    is_configuration: true,
                },
                sections,
            );
        }
    }

    /// Reads each key of `table` into the section that declares it.
    pub(super) fn section(
        &mut self,
        table: &DeTable<'_>,
        level: &Level<'_>,
        sections: &mut [&mut dyn Section],
    ) {
        for (key, value) in table.iter() {
            let name: &str = key.get_ref();
            let origin = Origin::File(self.document.locate(value.span().start));
            let written = Written::Toml(value.get_ref());
            match sections
                .iter_mut()
                .find_map(|section| section.read(name, &written, origin.clone()))
            {
                Some(Ok(())) => {}
                Some(Err(mismatch)) => self.mismatch(&value.span(), name, level.place, mismatch),
                None if level.tables.contains(&name) => {}
                None => self.unknown_key(
                    key,
                    value.get_ref().is_table() || is_list_of_tables(value.get_ref()),
                    level,
                    sections,
                ),
            }
        }
    }

    pub(super) fn required(
        &mut self,
        table: &DeTable<'_>,
        header: &Range<usize>,
        keys: &[super::section::Key],
        place: &str,
    ) {
        for key in keys {
            let KeyDefault::Required(example) = key.default else {
                continue;
            };
            // After a syntax error, the parser may have lost the key.
            if !table.contains_key(key.name) && self.broken_lines.is_empty() {
                let message = format!("missing key `{}` {place}", key.name);
                let hint = format!("add a line such as `{} = {example}`", key.name);
                self.errors.push(self.document.error(header, message, Some(hint)));
            }
        }
    }

    fn mismatch(&mut self, span: &Range<usize>, key: &str, place: &str, mismatch: Mismatch) {
        let span = mismatch.span.as_ref().unwrap_or(span).clone();
        if self.broken_lines.contains(&self.document.locate(span.start).line) {
            return;
        }
        let message = mismatch.message(key, place);
        self.errors
            .push(self.document.error(&span, message, mismatch.hint));
    }

    pub(super) fn wrong_type(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        what: &str,
        expected: &str,
        hint: Option<&str>,
    ) {
        let found = match value.get_ref() {
            DeValue::Table(_) => "one table".to_owned(),
            DeValue::Array(_) | DeValue::Integer(_) => format!("an {}", value.get_ref().type_str()),
            other => format!("a {}", other.type_str()),
        };
        let message = format!("invalid {what}: found {found}, expected {expected}");
        self.errors.push(
            self.document
                .error(&value.span(), message, hint.map(str::to_owned)),
        );
    }

    fn unknown_key(
        &mut self,
        key: &Spanned<DeString<'_>>,
        is_table: bool,
        level: &Level<'_>,
        sections: &[&mut dyn Section],
    ) {
        let name: &str = key.get_ref();
        let known = || {
            let keys = sections
                .iter()
                .flat_map(|section| section.keys())
                .map(|key| key.name);
            keys.chain(level.tables.iter().copied())
        };
        let elsewhere = tables_with(name).filter(|_| level.is_configuration);
        let hint = match (elsewhere, nearest(name, known())) {
            (Some(tables), _) => format!("`{name}` belongs in {tables}"),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) => format!("expected {}", alternatives(known(), "or")),
        };
        let what = if is_table { "table" } else { "key" };
        let message = format!("unknown {what} `{name}` {}", level.place);
        self.errors
            .push(self.document.error(&key.span(), message, Some(hint)));
    }
}

/// The tables that have a key of this name.
fn tables_with(name: &str) -> Option<String> {
    let tables = [
        ("[server]", WrittenServer::KEYS),
        ("[server.tls]", WrittenTls::KEYS),
        ("[logging]", WrittenLogging::KEYS),
        ("[tracing]", WrittenTracing::KEYS),
        ("[metrics]", WrittenMetrics::KEYS),
        ("[jobs]", WrittenJobs::KEYS),
        (
            "[batching], [models.batching] or [models.tasks.…]",
            WrittenBatching::KEYS,
        ),
        ("[[models]]", WrittenModel::KEYS),
        ("[models.embeddings]", WrittenEmbeddings::KEYS),
        ("[models.tasks.…]", WrittenTask::KEYS),
    ];
    let matching = tables
        .into_iter()
        .filter(|(_, keys)| keys.iter().any(|key| key.name == name));
    let matching: Vec<&str> = matching.map(|(table, _)| table).collect();
    match name {
        "tasks" => Some("[[models]], as [models.tasks.…]".to_owned()),
        "settings" => Some("[[models]], as [models.settings]".to_owned()),
        "embeddings" => Some("[[models]], as [models.embeddings]".to_owned()),
        "env" => Some("[[models]], as [models.env]".to_owned()),
        "tls" => Some("[server], as [server.tls]".to_owned()),
        _ => (!matching.is_empty()).then(|| matching.join(" or ")),
    }
}

fn is_list_of_tables(value: &DeValue<'_>) -> bool {
    value
        .as_array()
        .is_some_and(|array| array.iter().all(|element| element.get_ref().is_table()))
}
