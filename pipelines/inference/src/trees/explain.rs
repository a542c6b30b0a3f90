//! Which feature a forest's sum owes to what: Shapley values along the paths.
//!
//! Lundberg et al. 2020, algorithm 2 ("path-dependent"). A feature that is not in a coalition is averaged over by the shares of
//! training cases that went left and right. What the features get adds up to the forest's sum less its mean over
//! those shares, exactly but for rounding.

use super::forest::{Forest, Node};

/// What each feature contributed.
#[derive(Clone, PartialEq, Debug)]
pub struct Shares {
    /// By feature.
    pub features: Vec<f64>,
    /// The forest's mean over its training cases.
    pub neutral: f64,
    /// The forest's sum for the row: `neutral` and all features together.
    pub output: f64,
}

impl Forest {
    /// What each of `features` features contributed to the sum for a row.
    pub fn explain(&self, row: &[f32], features: usize) -> Shares {
        let mut shares = vec![0.0; features];
        let mut neutral = 0.0;
        for tree in self.trees() {
            neutral += mean(tree, 0);
            let mut walk = Walk { tree, row, shares: &mut shares };
            walk.down(0, Path::default(), Step { feature: None, zero: 1.0, one: 1.0, weight: 0.0 });
        }
        Shares { features: shares, neutral, output: self.predict(row) }
    }
}

/// The mean of a subtree by the shares of its forks.
fn mean(tree: &[Node], at: usize) -> f64 {
    match tree.get(at) {
        None => 0.0,
        Some(node) if node.is_leaf() => f64::from(node.value()),
        Some(node) => {
            let share = node.left_share();
            share * mean(tree, node.left()) + (1.0 - share) * mean(tree, node.left() + 1)
        }
    }
}

/// A fork on the way: its feature, what share of all cases goes on when the feature is left out (`zero`) and whether
/// this row does (`one`), and the weight of the coalitions of as many features.
#[derive(Clone, Copy)]
struct Step {
    feature: Option<usize>,
    zero: f64,
    one: f64,
    weight: f64,
}

#[derive(Clone, Default)]
struct Path(Vec<Step>);

impl Path {
    fn extend(&mut self, step: Step) {
        let length = self.0.len();
        let weight = if length == 0 { 1.0 } else { 0.0 };
        self.0.push(Step { weight, ..step });
        let whole = (length + 1) as f64;
        for at in (0..length).rev() {
            let own = self.0[at].weight;
            self.0[at + 1].weight += step.one * own * (at + 1) as f64 / whole;
            self.0[at].weight = step.zero * own * (length - at) as f64 / whole;
        }
    }

    /// Takes one step back out.
    fn unwind(&mut self, index: usize) {
        let weights = self.without(index);
        self.0.remove(index);
        for (step, weight) in self.0.iter_mut().zip(weights) {
            step.weight = weight;
        }
    }

    /// The weights as if a step were not there.
    fn without(&self, index: usize) -> Vec<f64> {
        let last = self.0.len() - 1;
        let (zero, one) = (self.0[index].zero, self.0[index].one);
        let mut weights = vec![0.0; last];
        let mut next = self.0[last].weight;
        for at in (0..last).rev() {
            let own = self.0[at].weight;
            let rest = (last - at) as f64 / (last + 1) as f64;
            if one != 0.0 {
                weights[at] = next * (last + 1) as f64 / ((at + 1) as f64 * one);
                next = own - weights[at] * zero * rest;
            } else {
                weights[at] = own / (zero * rest);
            }
        }
        weights
    }
}

struct Walk<'w> {
    tree: &'w [Node],
    row: &'w [f32],
    shares: &'w mut [f64],
}

impl Walk<'_> {
    fn down(&mut self, at: usize, mut path: Path, step: Step) {
        path.extend(step);
        let Some(node) = self.tree.get(at) else { return };
        if node.is_leaf() {
            for index in 1..path.0.len() {
                let weight: f64 = path.without(index).iter().sum();
                let Step { feature, zero, one, .. } = path.0[index];
                let slot = feature.and_then(|feature| self.shares.get_mut(feature));
                if let Some(slot) = slot {
                    *slot += weight * (one - zero) * f64::from(node.value());
                }
            }
            return;
        }
        let feature = Some(node.feature());
        let (mut zero, mut one) = (1.0, 1.0);
        // The same feature further up counts once, with both forks' shares.
        if let Some(index) = path.0.iter().position(|step| step.feature == feature) {
            (zero, one) = (path.0[index].zero, path.0[index].one);
            path.unwind(index);
        }
        let (left, hot) = (node.left(), node.next(self.row));
        for (child, share) in [(left, node.left_share()), (left + 1, 1.0 - node.left_share())] {
            let one = if child == hot { one } else { 0.0 };
            self.down(child, path.clone(), Step { feature, zero: zero * share, one, weight: 0.0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FEATURES: usize = 4;

    /// The sum when only the features of a coalition are known.
    fn known(tree: &[Node], at: usize, row: &[f32], coalition: usize) -> f64 {
        let node = tree[at];
        if node.is_leaf() {
            return f64::from(node.value());
        }
        if coalition >> node.feature() & 1 == 1 {
            return known(tree, node.next(row), row, coalition);
        }
        node.left_share() * known(tree, node.left(), row, coalition)
            + (1.0 - node.left_share()) * known(tree, node.left() + 1, row, coalition)
    }

    /// Shapley's definition over all coalitions.
    fn shapley(tree: &[Node], row: &[f32], feature: usize) -> f64 {
        let factorial = |n: usize| (1..=n).product::<usize>() as f64;
        (0..1 << FEATURES)
            .filter(|coalition| coalition >> feature & 1 == 0)
            .map(|coalition: usize| {
                let size = coalition.count_ones() as usize;
                let weight = factorial(size) * factorial(FEATURES - size - 1) / factorial(FEATURES);
                weight
                    * (known(tree, 0, row, coalition | 1 << feature)
                        - known(tree, 0, row, coalition))
            })
            .sum()
    }

    /// A full tree of three levels.
    fn tree(forks: &[(usize, f32, bool, f64)], leaves: &[f32]) -> Vec<Node> {
        let fork = |(at, fork): (usize, &(usize, f32, bool, f64))| {
            Node::fork(fork.0, fork.1, fork.2, 2 * at + 1, fork.3)
        };
        forks
            .iter()
            .enumerate()
            .map(fork)
            .chain(leaves.iter().map(|value| Node::leaf(*value)))
            .collect()
    }

    proptest! {
        #[test]
        fn shares_are_shapleys_and_add_up(
            forks in prop::collection::vec((0..FEATURES, -1.0f32..1.0, any::<bool>(), 0.05f64..0.95), 7),
            leaves in prop::collection::vec(-2.0f32..2.0, 8),
            row in prop::collection::vec(prop_oneof![-1.5f32..1.5, Just(f32::NAN)], FEATURES),
        ) {
            let tree = tree(&forks, &leaves);
            let mut forest = Forest::default();
            forest.push(tree.clone());
            let shares = forest.explain(&row, FEATURES);
            for feature in 0..FEATURES {
                let exact = shapley(&tree, &row, feature);
                prop_assert!((shares.features[feature] - exact).abs() < 1e-9, "{shares:?} {exact}");
            }
            let sum: f64 = shares.features.iter().sum();
            prop_assert!((shares.neutral + sum - shares.output).abs() < 1e-9);
        }
    }
}
