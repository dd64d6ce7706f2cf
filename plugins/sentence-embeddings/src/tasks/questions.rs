//! Comparisons of passages with a query: similarity of their vectors, and ranking by a network that reads both.

use std::sync::Arc;

use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as JsonValue;
use transformer::Tokens;

use super::{Direction, Role, TextParameters, TextReader, finite, info, truncation};
use crate::SentenceEmbeddings;
use crate::labels::{Labels, ScoreFunction};
use crate::model_spec::Embedding;

/// A query, and passages to compare with it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// The query.
    query: String,
    /// The passages.
    #[schemars(length(min = 1))]
    passages: Vec<String>,
}

impl Question {
    fn example() -> JsonValue {
        json!({
            "query": "How tall is Mont Blanc?",
            "passages": ["Mont Blanc rises 4806 m above sea level.", "The lake is 310 m deep."],
        })
    }

    fn check(&self, max: usize) -> Result<(), ItemError> {
        match self.passages.len() {
            0 => Err(ItemError::invalid("`passages` is empty, expected at least one")),
            count if count > max => Err(ItemError::invalid(format_args!(
                "`passages` has {count} texts, expected at most {max}"
            ))),
            _ => Ok(()),
        }
    }
}

/// The similarity of each passage to the query, in the order of the passages.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Scores {
    scores: Vec<f32>,
}

/// Task that compares the vectors of passages with that of a query.
pub(crate) struct Similarity {
    embedding: Arc<Embedding>,
    query: TextReader,
    passage: TextReader,
}

impl Similarity {
    pub(crate) fn new(embedding: &Arc<Embedding>) -> Self {
        let reader = |role| TextReader::new(role, &embedding.prompts, !embedding.includes_prompt);
        Self {
            embedding: Arc::clone(embedding),
            query: reader(Role::Query),
            passage: reader(Role::Passage),
        }
    }
}

impl PreparedTask<SentenceEmbeddings> for Similarity {
    type Input = Json<Question>;
    type Output = Json<Scores>;
    /// The query, followed by the passages.
    type Prepared = Vec<Tokens>;

    fn describe(&self) -> TaskInfo {
        info(
            "Computes the similarity of each passage to a query from their vectors. Larger scores mean more similar."
                .to_owned(),
        )
        .example(Question::example())
    }

    fn sample(&self, model: &SentenceEmbeddings, weight: u64) -> Option<JsonValue> {
        let query = self.query.sample(model, 1)?;
        let tokens = self.query.read(model, &query, TextParameters::default()).ok()?;
        let rest = weight.saturating_sub(tokens.len() as u64).max(1);
        let passage = |tokens| self.passage.sample(model, tokens);
        sample_question(query, rest, model, passage)
    }

    fn prepare(
        &self,
        model: &SentenceEmbeddings,
        item: Item<Question>,
    ) -> Result<Prepared<Vec<Tokens>>, ItemError> {
        let Question { query, passages } = &item.value;
        item.value.check(model.max_passages)?;
        let query = std::iter::once((&self.query, query));
        let passages = passages.iter().map(|passage| (&self.passage, passage));
        let texts = query.chain(passages);
        let tokens = texts.map(|(reader, text)| reader.read(model, text, TextParameters::default()));
        with_weight(tokens.collect())
    }

    fn predict(&self, model: &SentenceEmbeddings, batch: Batch<&Vec<Tokens>>) -> BatchResult<Scores> {
        let texts: Vec<_> = batch.iter().copied().flatten().collect();
        let mut vectors = model.encoder.vectors(&texts, &self.embedding, batch.worker())?;
        for vector in &mut vectors {
            self.embedding.finish(vector, None);
        }
        let mut vectors = vectors.into_iter();
        batch.try_map(|texts| {
            let query = vectors.next().unwrap_or_default();
            // All vectors of the item, so that the next item begins with its own.
            let passages: Vec<_> = vectors.by_ref().take(texts.len() - 1).collect();
            let scores = passages
                .iter()
                .map(|passage| finite(self.embedding.similarity.of(&query, passage)))
                .collect::<Result<_, _>>()?;
            Ok(Scores { scores })
        })
    }
}

/// Parameters of a ranking.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RankingParameters {
    /// Whether scores are those of the network, or the sigmoid function of them. The default is what the directory says.
    raw_scores: Option<bool>,
    /// Whether pairs that are too long are truncated. The default is the setting `truncate`.
    truncate: Option<bool>,
    /// The side of both texts that truncation removes. The default is what the directory says.
    truncation_direction: Option<Direction>,
}

/// The passages, most relevant first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ranking {
    results: Vec<Ranked>,
}

/// A passage with its relevance.
#[derive(Debug, Serialize, JsonSchema)]
struct Ranked {
    /// Index of the passage in the request.
    index: usize,
    score: f32,
}

/// Task that ranks passages by scoring each together with the query.
pub(crate) struct Rerank(pub(crate) Labels);

impl PreparedTask<SentenceEmbeddings> for Rerank {
    type Input = Json<Question>;
    type Output = Json<Ranking>;
    /// Pairs of the query and each passage.
    type Prepared = Vec<Tokens>;

    fn describe(&self) -> TaskInfo {
        info("Sorts passages by their relevance to a query, most relevant first.".to_owned())
            .reranker()
            .default_task()
            .parameters::<RankingParameters>()
            .example(Question::example())
    }

    fn sample(&self, model: &SentenceEmbeddings, weight: u64) -> Option<JsonValue> {
        let query = model.tokenizer.sample("", 1)?;
        // A pair contains the query and a separator as well.
        let pair = model.tokenizer.pair(&query, &query).ok()?.len() as u64;
        let own = pair.saturating_sub(model.tokenizer.text(&query).ok()?.len() as u64);
        let passage = |tokens: u64| model.tokenizer.sample("", tokens.saturating_sub(own).max(1));
        sample_question(query, weight, model, passage)
    }

    fn prepare(
        &self,
        model: &SentenceEmbeddings,
        item: Item<Question>,
    ) -> Result<Prepared<Vec<Tokens>>, ItemError> {
        let Question { query, passages } = &item.value;
        item.value.check(model.max_passages)?;
        let parameters: RankingParameters = item.parameters()?;
        let truncation = truncation(parameters.truncate, parameters.truncation_direction);
        let pair = |passage: &String| match parameters.truncate {
            Some(false) => model.tokenizer.whole_pair(query, passage),
            Some(true) | None => model.tokenizer.truncated_pair(query, passage, truncation),
        };
        with_weight(passages.iter().map(pair).collect())
    }

    fn predict(&self, model: &SentenceEmbeddings, batch: Batch<&Vec<Tokens>>) -> BatchResult<Ranking> {
        let pairs: Vec<_> = batch.iter().copied().flatten().collect();
        let mut scores = model.encoder.logits(&pairs, 1, batch.worker())?.into_iter();
        batch.try_map_with(|pairs, parameters: RankingParameters| {
            let function = match parameters.raw_scores {
                None => self.0.function,
                Some(true) => ScoreFunction::Identity,
                Some(false) => ScoreFunction::Sigmoid,
            };
            // All scores of the item, so that the next item begins with its own.
            let mut scores: Vec<f32> = scores.by_ref().take(pairs.len()).flatten().collect();
            function.apply(&mut scores);
            let ranked = |(index, score)| {
                Ok(Ranked {
                    index,
                    score: finite(score)?,
                })
            };
            let mut results = scores
                .into_iter()
                .enumerate()
                .map(ranked)
                .collect::<Result<Vec<_>, ItemError>>()?;
            // The sort is stable, so passages with equal scores keep their order.
            results.sort_by(|one, other| other.score.total_cmp(&one.score));
            Ok(Ranking { results })
        })
    }
}

/// Returns a question whose passages have about `weight` tokens. `passage` creates one passage with a number of tokens. `None`
/// if the question would have too many passages.
fn sample_question(
    query: String,
    weight: u64,
    model: &SentenceEmbeddings,
    passage: impl Fn(u64) -> Option<String>,
) -> Option<JsonValue> {
    let longest = model.tokenizer.max_length() as u64;
    let count = weight.div_ceil(longest).max(1);
    if count > model.max_passages as u64 {
        return None;
    }
    let (each, longer) = (weight / count, weight % count);
    let passages: Option<Vec<String>> = (0..count)
        .map(|nth| passage((each + u64::from(nth < longer)).max(1)))
        .collect();
    Some(json!({"query": query, "passages": passages?}))
}

fn with_weight(texts: Result<Vec<Tokens>, ItemError>) -> Result<Prepared<Vec<Tokens>>, ItemError> {
    let texts = texts?;
    let weight = texts.iter().map(Tokens::len).sum::<usize>() as u64;
    Ok(Prepared::new(texts).weight(weight))
}
