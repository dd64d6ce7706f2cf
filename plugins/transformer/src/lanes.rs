//! Which thread computes what. Sequences that do not pad one another can be computed apart, so a batch is dealt out in blocks to
//! threads that never wait for each other; what cannot be dealt out evenly, such as a single text, is computed by all
//! threads together.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use plugin_sdk::LoadError;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Most tokens that are computed at once: enough to keep the processor's arithmetic busy, few enough that what is computed
/// of them stays in its cache.
const BLOCK_TOKENS: usize = 256;

/// How much more than its share the busiest thread may have before all threads compute together.
const TOLERANCE: f64 = 1.25;

/// Most threads of one batch; more is a mistake, and would fail in stranger ways.
const MAX_THREADS: usize = 1024;

/// How many threads compute a batch: as the setting `threads` says, or else as many as the server suggests.
///
/// # Errors
/// They are too many; the setting is to blame.
pub fn threads(written: Option<NonZeroUsize>, suggested: usize) -> Result<usize, LoadError> {
    let threads = written.map_or(suggested, NonZeroUsize::get);
    if threads > MAX_THREADS {
        let message = format!("{threads}, expected at most {MAX_THREADS}");
        return Err(LoadError::setting("threads", message));
    }
    Ok(threads)
}

/// The threads of one worker.
pub struct Lanes {
    /// All of them, for what they do together.
    together: ThreadPool,
    /// One thread each.
    alone: Vec<ThreadPool>,
}

impl Lanes {
    /// Starts that many threads for what they do together, and as many for what each does alone.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn new(threads: usize) -> Result<Self, LoadError> {
        let pool = |threads: usize| {
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("encoder-{index}"))
                .build()
        };
        Ok(Self {
            together: pool(threads)?,
            alone: (0..threads).map(|_| pool(1)).collect::<Result<_, _>>()?,
        })
    }

    /// Computes `each` on blocks of sequences with these numbers of tokens. It is given indexes of sequences and gives a
    /// result for each; the results are returned in the order of the sequences.
    pub fn run<R: Send>(&self, lengths: &[usize], each: impl Fn(&[usize]) -> Vec<R> + Sync) -> Vec<R> {
        let (blocks, apart) = deal(lengths, self.alone.len());
        let results = if apart {
            self.run_apart(&blocks, &each)
        } else {
            self.together
                .install(|| blocks.iter().map(|block| each(block)).collect())
        };
        let indexes = blocks.iter().flatten();
        let mut ordered: Vec<_> = indexes.zip(results.into_iter().flatten()).collect();
        ordered.sort_by_key(|(index, _)| **index);
        ordered.into_iter().map(|(_, result)| result).collect()
    }

    fn run_apart<R: Send>(
        &self,
        blocks: &[Vec<usize>],
        each: &(impl Fn(&[usize]) -> Vec<R> + Sync),
    ) -> Vec<Vec<R>> {
        let next = AtomicUsize::new(0);
        let take_blocks = |lane: &ThreadPool| {
            lane.install(|| {
                let mut done = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(block) = blocks.get(index) else {
                        return done;
                    };
                    done.push((index, each(block)));
                }
            })
        };
        let done = self
            .together
            .broadcast(|context| take_blocks(&self.alone[context.index()]));
        let mut done: Vec<_> = done.into_iter().flatten().collect();
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, results)| results).collect()
    }
}

/// Deals sequences out into blocks of about the same number of tokens, and says whether threads may compute them apart.
fn deal(lengths: &[usize], threads: usize) -> (Vec<Vec<usize>>, bool) {
    let total: usize = lengths.iter().sum();
    let count = total
        .div_ceil(BLOCK_TOKENS)
        .next_multiple_of(threads)
        .clamp(1, lengths.len().max(1));
    let mut order: Vec<_> = (0..lengths.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(lengths[*index]));
    let mut blocks = vec![(0, Vec::new()); count];
    for index in order {
        let lightest = blocks.iter_mut().min_by_key(|(tokens, _)| *tokens);
        if let Some((tokens, block)) = lightest {
            *tokens += lengths[index];
            block.push(index);
        }
    }
    // The heaviest first, so that the threads end at about the same time.
    blocks.sort_by_key(|(tokens, _)| std::cmp::Reverse(*tokens));
    let mut loads = vec![0; threads];
    for (tokens, _) in &blocks {
        if let Some(load) = loads.iter_mut().min() {
            *load += tokens;
        }
    }
    let busiest = loads.into_iter().max().unwrap_or(0);
    let apart = busiest as f64 <= total as f64 / threads as f64 * TOLERANCE;
    (blocks.into_iter().map(|(_, block)| block).collect(), apart)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_dealt_out_evenly() {
        let (blocks, apart) = deal(&[100, 30, 30, 40, 300, 100], 2);
        let tokens: Vec<usize> = blocks
            .iter()
            .map(|block| {
                block
                    .iter()
                    .map(|index| [100, 30, 30, 40, 300, 100][*index])
                    .sum()
            })
            .collect();
        assert_eq!((tokens, apart), (vec![300, 100, 100, 100], true));
    }

    #[test]
    fn a_single_text_is_computed_by_all_threads_together() {
        assert_eq!(deal(&[20], 2), (vec![vec![0]], false));
        assert_eq!(deal(&[20], 1), (vec![vec![0]], true));
        assert!(!deal(&[200, 3], 2).1);
    }

    #[test]
    fn results_keep_the_order_of_the_sequences() {
        for threads in [1, 2, 3] {
            let lanes = Lanes::new(threads).expect("threads can be started");
            for count in [1, 2, 7, 100] {
                let lengths: Vec<_> = (0..count).map(|index| 1 + index * 37 % 250).collect();
                let results = lanes.run(&lengths, <[usize]>::to_vec);
                assert_eq!(results, (0..count).collect::<Vec<_>>());
            }
        }
    }
}
