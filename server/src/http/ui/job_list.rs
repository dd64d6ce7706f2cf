//! Which jobs a page shows.

use serde::Deserialize;

use crate::api::{Client, Failure};
use crate::http::jobs::handlers::{store, viewer};
use crate::http::jobs::of_store;
use crate::http::jobs::parameters::{parse_cursor, parse_states};
use crate::http::openapi::path_segment;
use crate::http::server::Shared;
use crate::jobs::{JobFilter, JobId, JobPage};

/// Number of jobs on a page.
pub(super) const JOBS: usize = 50;

/// What a user has chosen, as the form and links send it. Empty texts choose nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Choice {
    /// States, separated by commas.
    pub(super) state: String,
    pub(super) model: String,
    pub(super) label: String,
    /// The list begins after this job.
    pub(super) cursor: String,
}

impl Choice {
    /// Whether only some jobs are shown.
    pub(super) fn is_filtered(&self) -> bool {
        [&self.state, &self.model, &self.label]
            .iter()
            .any(|text| !text.is_empty())
    }

    /// Whether the newest jobs are shown.
    pub(super) fn is_first_page(&self) -> bool {
        self.cursor.is_empty()
    }

    /// The filter.
    ///
    /// # Errors
    /// There is no such state.
    pub(super) fn filter(&self) -> Result<JobFilter, Failure> {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Ok(JobFilter {
            states: match self.state.as_str() {
                "" => Vec::new(),
                states => parse_states(states)?,
            },
            model: text(&self.model),
            label: text(&self.label),
            ids: None,
        })
    }

    /// The jobs that a client can see.
    ///
    /// # Errors
    /// There is no such state or cursor, or the store is not available.
    pub(super) async fn find(&self, shared: &Shared, client: &Client) -> Result<JobPage, Failure> {
        let filter = self.filter()?;
        let cursor = match self.cursor.as_str() {
            "" => None,
            cursor => Some(parse_cursor(cursor)?),
        };
        let Some(store) = store(shared).await? else {
            return Ok(JobPage::default());
        };
        let found = store.list(&filter, &viewer(client), cursor, JOBS as u32).await;
        found.map_err(|error| of_store(&error))
    }

    /// The same choice from the newest job on.
    pub(super) fn first_page(&self) -> Self {
        Self {
            cursor: String::new(),
            ..self.clone()
        }
    }

    /// The same choice, after a job.
    pub(super) fn after(&self, job: JobId) -> Self {
        Self {
            cursor: job.to_string(),
            ..self.clone()
        }
    }

    /// The query of a link, with its question mark.
    pub(super) fn query(&self) -> String {
        let parts = [
            ("state", &self.state),
            ("model", &self.model),
            ("label", &self.label),
            ("cursor", &self.cursor),
        ];
        let parts = parts.into_iter().filter(|(_, value)| !value.is_empty());
        let parts: Vec<String> = parts
            .map(|(name, value)| format!("{name}={}", path_segment(value)))
            .collect();
        format!("?{}", parts.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::web::Query;

    use super::*;
    use crate::jobs::JobState;

    #[test]
    fn a_choice_is_read_as_it_was_written() {
        let choice = Choice {
            state: "queued,running".to_owned(),
            model: "BAAI/bge".to_owned(),
            label: "nächtlich & <b>\"ü\"".to_owned(),
            cursor: String::new(),
        };
        let query = choice.query();
        assert!(query.is_ascii() && !query.contains(['<', '"', ' ']), "{query}");
        let read = Query::<Choice>::from_query(&query[1..]).expect("it is a query");
        assert_eq!(read.into_inner(), choice);
        assert_eq!(Choice::default().query(), "?");
    }

    #[test]
    fn empty_fields_of_the_form_choose_nothing() {
        let read = Query::<Choice>::from_query("state=&model=&label=").expect("it is a query");
        assert!(!read.is_filtered() && read.is_first_page());
        assert_eq!(read.filter(), Ok(JobFilter::default()));
        let failed = Choice {
            state: "failed".to_owned(),
            ..Choice::default()
        };
        let filter = failed.filter().expect("there is such a state");
        assert_eq!(filter.states, [JobState::Failed, JobState::DeadLetter]);
        let unknown = Choice {
            state: "done".to_owned(),
            ..Choice::default()
        };
        assert!(unknown.filter().is_err());
    }
}
