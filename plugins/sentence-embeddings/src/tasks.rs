//! The tasks: vectors of queries and passages, similarity of passages to a query, and ranking of passages.

use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as JsonValue;
use transformer::Tokens;

use crate::SentenceEmbeddings;
use crate::model_spec::Embedding;

/// Default maximum number of tokens of a batch. Larger batches do not increase throughput, because nothing is padded.
const BATCH_TOKENS: u64 = 2048;

/// Default maximum number of texts of a batch. The limit of tokens matters more.
const BATCH_TEXTS: usize = 64;

/// Role of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    Query,
    Passage,
}

/// Task that computes the vector of a text.
pub(crate) struct Embed {
    info: TaskInfo,
    prompt: String,
    embedding: Embedding,
}

impl Embed {
    pub(crate) fn new(prompt: Prompt, embedding: &Embedding, width: usize) -> Self {
        let (what, prompt, example) = match prompt {
            Prompt::Query => ("a query", &embedding.query, "How tall is Mont Blanc?"),
            Prompt::Passage => (
                "a passage",
                &embedding.passage,
                "Mont Blanc rises 4806 m above sea level.",
            ),
        };
        let scaled = if embedding.normalize {
            ", scaled to length 1"
        } else {
            ""
        };
        Self {
            info: TaskInfo::new(format!("Computes the vector of {what}{scaled}."))
                .embedding()
                .output_tensor(TensorInfo::new("embedding", DType::Fp32, &[width as i64]))
                .max_total_weight(BATCH_TOKENS)
                .max_batch_size(BATCH_TEXTS)
                .samples()
                .example(json!(example)),
            prompt: prompt.clone(),
            embedding: embedding.clone(),
        }
    }
}

impl PreparedTask<SentenceEmbeddings> for Embed {
    type Input = Text;
    type Output = Tensor;
    type Prepared = Tokens;

    fn describe(&self) -> TaskInfo {
        self.info.clone()
    }

    fn prepare(&self, model: &SentenceEmbeddings, item: Item<&str>) -> Result<Prepared<Tokens>, ItemError> {
        let tokens = model.tokenizer.text_after(&self.prompt, item.value)?;
        let weight = tokens.len() as u64;
        Ok(Prepared::new(tokens).weight(weight))
    }

    fn predict(&self, model: &SentenceEmbeddings, batch: Batch<&Tokens>) -> BatchResult<TensorOutput> {
        let vectors = model.encoder.vectors(&batch, &self.embedding, batch.worker())?;
        let shape = [vectors.len(), model.width];
        Ok(Outputs::<TensorOutput>::batch(TensorOutput::new(
            "embedding",
            &shape,
            vectors.concat(),
        )))
    }

    fn sample(&self, model: &SentenceEmbeddings, weight: u64) -> Option<JsonValue> {
        model
            .tokenizer
            .sample(&self.prompt, weight)
            .map(|text| json!(text))
    }
}

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
pub(crate) struct Similarity(pub(crate) Embedding);

impl PreparedTask<SentenceEmbeddings> for Similarity {
    type Input = Json<Question>;
    type Output = Json<Scores>;
    /// The query, followed by the passages.
    type Prepared = Vec<Tokens>;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new(
            "Computes the similarity of each passage to a query from their vectors. Larger scores mean more similar.",
        )
        .max_total_weight(BATCH_TOKENS)
        .max_batch_size(BATCH_TEXTS)
        .samples()
        .example(Question::example())
    }

    fn sample(&self, model: &SentenceEmbeddings, weight: u64) -> Option<JsonValue> {
        let query = model.tokenizer.sample(&self.0.query, 1)?;
        let tokens = model.tokenizer.text_after(&self.0.query, &query).ok()?;
        let rest = weight.saturating_sub(tokens.len() as u64).max(1);
        let passage = |tokens| model.tokenizer.sample(&self.0.passage, tokens);
        sample_question(query, rest, model, passage)
    }

    fn prepare(
        &self,
        model: &SentenceEmbeddings,
        item: Item<Question>,
    ) -> Result<Prepared<Vec<Tokens>>, ItemError> {
        let Question { query, passages } = &item.value;
        item.value.check(model.max_passages)?;
        let query = std::iter::once((&self.0.query, query));
        let passages = passages.iter().map(|passage| (&self.0.passage, passage));
        let texts = query.chain(passages);
        let tokens = texts.map(|(prompt, text)| model.tokenizer.text_after(prompt, text));
        with_weight(tokens.collect())
    }

    fn predict(&self, model: &SentenceEmbeddings, batch: Batch<&Vec<Tokens>>) -> BatchResult<Scores> {
        let texts: Vec<_> = batch.iter().copied().flatten().collect();
        let mut vectors = model
            .encoder
            .vectors(&texts, &self.0, batch.worker())?
            .into_iter();
        batch.try_map(|texts| {
            let query = vectors.next().unwrap_or_default();
            // All vectors of the item, so that the next item begins with its own.
            let passages: Vec<_> = vectors.by_ref().take(texts.len() - 1).collect();
            let scores = passages
                .iter()
                .map(|passage| finite(self.0.similarity.of(&query, passage)))
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
pub(crate) struct Rerank {
    pub(crate) sigmoid: bool,
}

impl PreparedTask<SentenceEmbeddings> for Rerank {
    type Input = Json<Question>;
    type Output = Json<Ranking>;
    /// Pairs of the query and each passage.
    type Prepared = Vec<Tokens>;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Sorts passages by their relevance to a query, most relevant first.")
            .reranker()
            .parameters::<RankingParameters>()
            .max_total_weight(BATCH_TOKENS)
            .max_batch_size(BATCH_TEXTS)
            .samples()
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
        let RankingParameters { truncate, .. } = item.parameters()?;
        let pair = |passage: &String| match truncate {
            Some(false) => model.tokenizer.whole_pair(query, passage),
            // With the setting `truncate = false`, pairs that are too long are rejected.
            Some(true) | None => model.tokenizer.pair(query, passage),
        };
        with_weight(passages.iter().map(pair).collect())
    }

    fn predict(&self, model: &SentenceEmbeddings, batch: Batch<&Vec<Tokens>>) -> BatchResult<Ranking> {
        let pairs: Vec<_> = batch.iter().copied().flatten().collect();
        let mut scores = model.encoder.scores(&pairs, batch.worker())?.into_iter();
        batch.try_map_with(|pairs, parameters: RankingParameters| {
            let sigmoid_applies = parameters.raw_scores.map_or(self.sigmoid, |raw| !raw);
            // All scores of the item, so that the next item begins with its own.
            let scores: Vec<_> = scores.by_ref().take(pairs.len()).collect();
            let ranked = |(index, score)| {
                Ok(Ranked {
                    index,
                    score: finite(if sigmoid_applies { sigmoid(score) } else { score })?,
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

/// Rejects a score that JSON cannot express.
fn finite(score: f32) -> Result<f32, ItemError> {
    match score.is_finite() {
        true => Ok(score),
        false => Err(ItemError::fault(format_args!("a score is {score}"))),
    }
}

fn sigmoid(score: f32) -> f32 {
    1.0 / (1.0 + (-score).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_is_not_finite_is_an_error() {
        assert_eq!(finite(sigmoid(0.0)).ok(), Some(0.5));
        for score in [f32::NAN, f32::INFINITY, sigmoid(f32::NAN)] {
            assert!(finite(score).is_err(), "{score}");
        }
    }
}
