//! Growing trees, each on what the ones before it left over.

use super::bins::{Binned, MAX_BINS};
use super::forest::{Forest, MAX_NODES_PER_TREE, MAX_TREES, Node};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// How trees are grown.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Growth {
    /// How many trees.
    pub trees: usize,
    /// The most leaves of one tree.
    pub leaves: usize,
    /// How much of a leaf's best value is taken.
    pub learning_rate: f64,
    /// The least weight of cases in a leaf.
    pub leaf_weight: f64,
    /// λ, added to a leaf's second derivative.
    pub regularisation: f64,
    /// Share of features that a tree may look at.
    pub feature_share: f64,
    /// Share of groups (patients) that a tree is grown on.
    pub group_share: f64,
}

/// A table of cases to learn from.
#[derive(Clone, Copy, Debug)]
pub struct Table<'t> {
    /// Row by row, `features` numbers each; NaN is missing.
    pub values: &'t [f32],
    /// Numbers in a row.
    pub features: usize,
    /// Whether each row is positive.
    pub positive: &'t [bool],
    /// How much each row counts.
    pub weights: &'t [f32],
    /// Which patient each row is of: a tree is grown on all rows of a patient or on none.
    pub groups: &'t [usize],
}

/// Grows a forest whose sum is the log-odds of a positive, on the `cases` rows of a table (logistic loss).
///
/// `progress` is told how many trees there are after each. The same table, cases, settings and random numbers give the same forest.
pub fn grow(
    table: &Table,
    cases: &[usize],
    growth: &Growth,
    rng: &mut ChaCha8Rng,
    progress: &mut dyn FnMut(usize),
) -> Forest {
    let binned = Binned::new(table.values, table.features, cases);
    let positive: Vec<f64> =
        cases.iter().map(|case| f64::from(u8::from(table.positive[*case]))).collect();
    let weights: Vec<f64> = cases.iter().map(|case| f64::from(table.weights[*case])).collect();
    let base = log_odds(&positive, &weights);
    let mut forest = Forest::default();
    forest.push(vec![Node::leaf(base as f32)]);
    let mut sums = vec![base; cases.len()];
    let mut slopes = vec![Slope::default(); cases.len()];
    for done in 0..growth.trees.min(MAX_TREES - 1) {
        for (at, slope) in slopes.iter_mut().enumerate() {
            let p = 1.0 / (1.0 + (-sums[at]).exp());
            let w = weights[at];
            *slope = Slope { g: w * (p - positive[at]), h: w * p * (1.0 - p), w };
        }
        let mut features: Vec<usize> = (0..table.features).collect();
        features.shuffle(rng);
        features.truncate(((table.features as f64 * growth.feature_share) as usize).max(1));
        features.sort_unstable();
        let sample = sample(table, cases, growth.group_share, rng);
        let mut grower = Grower { binned: &binned, slopes: &slopes, features, growth };
        let tree = grower.tree(sample);
        add(&tree, &binned, &mut sums);
        forest.push(tree.into_iter().map(|(node, _)| node).collect());
        progress(done + 1);
    }
    forest
}

/// The log-odds of all cases together, kept finite.
fn log_odds(positive: &[f64], weights: &[f64]) -> f64 {
    let all: f64 = weights.iter().sum();
    let own: f64 = positive.iter().zip(weights).map(|(positive, weight)| positive * weight).sum();
    ((own + 0.5) / (all - own + 0.5)).ln()
}

/// The rows of a random share of the groups, by their place among `cases`.
fn sample(table: &Table, cases: &[usize], share: f64, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let groups = cases.iter().map(|case| table.groups[*case] + 1).max().unwrap_or(0);
    let drawn: Vec<bool> = (0..groups).map(|_| rng.random::<f64>() < share).collect();
    (0..cases.len()).filter(|at| drawn[table.groups[cases[*at]]]).map(|at| at as u32).collect()
}

/// Adds a tree's values to the sums of all cases; the second of a node is its cut's bin.
fn add(tree: &[(Node, u8)], binned: &Binned, sums: &mut [f64]) {
    for (case, sum) in sums.iter_mut().enumerate() {
        let mut at = 0;
        while !tree[at].0.is_leaf() {
            let (node, cut) = tree[at];
            let bin = binned.bins[node.feature()][case];
            let left = if bin == 0 { node.next(&[]) == node.left() } else { bin <= cut };
            at = node.left() + usize::from(!left);
        }
        *sum += f64::from(tree[at].0.value());
    }
}

/// Weighted first and second derivative of the loss, and the weight.
#[derive(Clone, Copy, Default)]
struct Slope {
    g: f64,
    h: f64,
    w: f64,
}

impl Slope {
    fn plus(self, other: Self) -> Self {
        Self { g: self.g + other.g, h: self.h + other.h, w: self.w + other.w }
    }

    fn minus(self, other: Self) -> Self {
        Self { g: self.g - other.g, h: self.h - other.h, w: self.w - other.w }
    }
}

type Histogram = Vec<[Slope; MAX_BINS]>;

/// The best fork of a leaf.
#[derive(Clone, Copy)]
struct Split {
    gain: f64,
    feature: usize,
    /// Bins up to this one go left.
    cut: u8,
    missing_left: bool,
    share: f64,
}

/// A leaf that may be forked.
struct Open {
    at: usize,
    cases: Vec<u32>,
    histogram: Histogram,
    total: Slope,
    split: Option<Split>,
}

struct Grower<'g> {
    binned: &'g Binned,
    slopes: &'g [Slope],
    features: Vec<usize>,
    growth: &'g Growth,
}

impl Grower<'_> {
    /// A tree over the features, its best leaf forked first; with each node the bin of its cut.
    fn tree(&mut self, cases: Vec<u32>) -> Vec<(Node, u8)> {
        let histogram = self.histogram(&cases);
        let mut tree = vec![(Node::leaf(0.0), 0)];
        let mut open = vec![self.open(0, cases, histogram)];
        while tree.len() + 2 <= MAX_NODES_PER_TREE && open.len() < self.growth.leaves {
            let gain = |leaf: &Open| leaf.split.map_or(0.0, |split| split.gain);
            let best = (0..open.len()).max_by(|a, b| gain(&open[*a]).total_cmp(&gain(&open[*b])));
            let Some(best) = best.filter(|best| gain(&open[*best]) > 0.0) else { break };
            let leaf = open.swap_remove(best);
            let Some(split) = leaf.split else { break };
            let threshold = self.binned.cuts[split.feature][usize::from(split.cut) - 1];
            let left = tree.len();
            let fork = Node::fork(split.feature, threshold, split.missing_left, left, split.share);
            tree[leaf.at] = (fork, split.cut);
            tree.extend([(Node::leaf(0.0), 0); 2]);
            open.extend(self.fork(leaf, split, left));
        }
        for leaf in open {
            let value = -leaf.total.g / (leaf.total.h + self.growth.regularisation);
            tree[leaf.at].0 = Node::leaf((value * self.growth.learning_rate) as f32);
        }
        tree
    }

    /// Both halves of a leaf; the smaller one is counted, the other one is the difference.
    fn fork(&self, leaf: Open, split: Split, left: usize) -> [Open; 2] {
        let bins = &self.binned.bins[split.feature];
        let goes_left = |case: &u32| match bins[*case as usize] {
            0 => split.missing_left,
            bin => bin <= split.cut,
        };
        let (ours, theirs): (Vec<u32>, Vec<u32>) =
            leaf.cases.iter().partition(|case| goes_left(case));
        let small = self.histogram(if ours.len() <= theirs.len() { &ours } else { &theirs });
        let mut large = leaf.histogram;
        for (large, small) in large.iter_mut().zip(&small) {
            for (large, small) in large.iter_mut().zip(small) {
                *large = large.minus(*small);
            }
        }
        let (one, other) = match ours.len() <= theirs.len() {
            true => (small, large),
            false => (large, small),
        };
        [self.open(left, ours, one), self.open(left + 1, theirs, other)]
    }

    fn open(&self, at: usize, cases: Vec<u32>, histogram: Histogram) -> Open {
        let total =
            cases.iter().fold(Slope::default(), |sum, case| sum.plus(self.slopes[*case as usize]));
        let split = self.best(&histogram, total);
        Open { at, cases, histogram, total, split }
    }

    fn histogram(&self, cases: &[u32]) -> Histogram {
        self.features
            .iter()
            .map(|feature| {
                let mut counts = [Slope::default(); MAX_BINS];
                let bins = &self.binned.bins[*feature];
                for case in cases {
                    let count = &mut counts[usize::from(bins[*case as usize])];
                    *count = count.plus(self.slopes[*case as usize]);
                }
                counts
            })
            .collect()
    }

    /// The fork with the largest gain (XGBoost's equation 7), what is missing tried on both sides.
    fn best(&self, histogram: &Histogram, total: Slope) -> Option<Split> {
        let growth = self.growth;
        let worth = |slope: Slope| slope.g * slope.g / (slope.h + growth.regularisation);
        let mut best: Option<Split> = None;
        for (feature, counts) in self.features.iter().zip(histogram) {
            for missing_left in [false, true] {
                let mut left = if missing_left { counts[0] } else { Slope::default() };
                let cuts = self.binned.cuts[*feature].len();
                for (cut, count) in counts.iter().enumerate().take(cuts + 1).skip(1) {
                    left = left.plus(*count);
                    let right = total.minus(left);
                    if left.w < growth.leaf_weight || right.w < growth.leaf_weight {
                        continue;
                    }
                    let gain = worth(left) + worth(right) - worth(total);
                    if gain > best.map_or(1e-9, |best| best.gain) {
                        let (feature, cut) = (*feature, cut as u8);
                        let share = left.w / total.w;
                        best = Some(Split { gain, feature, cut, missing_left, share });
                    }
                }
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::auroc;
    use rand::SeedableRng;

    const GROWTH: Growth = Growth {
        trees: 40,
        leaves: 6,
        learning_rate: 0.2,
        leaf_weight: 10.0,
        regularisation: 1.0,
        feature_share: 1.0,
        group_share: 0.8,
    };

    /// Positive where x₀ x₁ > 0, or mostly where x₂ is missing; x₃ is noise.
    fn table(cases: usize) -> (Vec<f32>, Vec<bool>) {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (mut values, mut positive) = (Vec::new(), Vec::new());
        for _ in 0..cases {
            let mut row: [f32; 4] = std::array::from_fn(|_| rng.random_range(-1.0..1.0));
            if rng.random::<f32>() < 0.2 {
                row[2] = f32::NAN;
            }
            positive.push(row[0] * row[1] > 0.0 || row[2].is_nan());
            values.extend(row);
        }
        (values, positive)
    }

    fn grown(seed: u64, growth: &Growth) -> (Forest, Vec<f32>, Vec<bool>) {
        let (values, positive) = table(3_000);
        let (weights, groups) =
            (vec![1.0; 3_000], (0..3_000).map(|case| case / 3).collect::<Vec<_>>());
        let table = Table {
            values: &values,
            features: 4,
            positive: &positive,
            weights: &weights,
            groups: &groups,
        };
        let cases: Vec<usize> = (0..2_000).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let forest = grow(&table, &cases, growth, &mut rng, &mut |_| {});
        (forest, values, positive)
    }

    #[test]
    fn what_depends_on_two_and_on_what_is_missing_is_learned() {
        let (forest, values, positive) = grown(1, &GROWTH);
        let scores: Vec<f64> =
            values.chunks(4).skip(2_000).map(|row| forest.predict(row)).collect();
        let area = auroc(&scores, &positive[2_000..]).unwrap();
        assert!(area > 0.95, "{area}");
        // And it is calibrated: the mean probability is the share of positives.
        let mean = scores.iter().map(|sum| 1.0 / (1.0 + (-sum).exp())).sum::<f64>() / 1_000.0;
        let share = positive[2_000..].iter().filter(|positive| **positive).count() as f64 / 1_000.0;
        assert!((mean - share).abs() < 0.03, "{mean} {share}");
        let missing = forest.explain(&[0.5, -0.5, f32::NAN, 0.0], 4).features;
        assert!(missing[2] > 1.0 && missing[3].abs() < 0.5, "{missing:?}");
    }

    #[test]
    fn a_seed_gives_one_forest_and_the_leaves_have_a_limit() {
        let (forest, ..) = grown(1, &GROWTH);
        assert_eq!(forest, grown(1, &GROWTH).0);
        assert_ne!(forest, grown(2, &GROWTH).0);
        for tree in forest.trees() {
            assert!(tree.iter().filter(|node| node.is_leaf()).count() <= GROWTH.leaves);
        }
        let (stump, ..) = grown(1, &Growth { leaf_weight: 1e9, ..GROWTH });
        assert!(stump.trees().all(|tree| tree.len() == 1));
    }
}
