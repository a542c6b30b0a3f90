//! A sum of trees, and its tensors.
//!
//! # Format
//! Three tensors. `trees.first` (u32): where each tree's nodes begin. `trees.node` (u32), a word a node: bits 0–9 the
//! number of the feature; bit 10 where what is missing goes (1: left); bit 11 whether it is a leaf; bits 12–19 the left
//! child, counted from the tree's first node, the right one follows it; bits 20–27 the share of training cases that
//! went left, in 255ths. `trees.value` (f32): a leaf's value, or the threshold (left is at or below). Children
//! come after their parents, so that every walk ends; what does not keep to that is refused.

use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

/// The most numbers that a tree can look at.
pub const MAX_FEATURES: usize = 1 << 10;
/// The most nodes of one tree: children are counted in a byte.
pub const MAX_NODES_PER_TREE: usize = 1 << 8;
/// The most trees in a forest.
pub const MAX_TREES: usize = 1 << 14;

const MISSING_LEFT: u32 = 1 << 10;
const LEAF: u32 = 1 << 11;
const FIRST: &str = "trees.first";
const NODE: &str = "trees.node";
const VALUE: &str = "trees.value";

/// One node, as it is kept.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Node {
    word: u32,
    value: f32,
}

impl Node {
    /// An end with its value.
    pub(super) const fn leaf(value: f32) -> Self {
        Self { word: LEAF, value }
    }

    /// A fork: `left` is the number of the left child in the tree, `share` how much of the training cases went there.
    pub(super) fn fork(
        feature: usize,
        threshold: f32,
        missing_left: bool,
        left: usize,
        share: f64,
    ) -> Self {
        let share = ((share * 255.0).round() as u32).clamp(1, 254);
        let missing = if missing_left { MISSING_LEFT } else { 0 };
        let word = (feature % MAX_FEATURES) as u32
            | missing
            | ((left % MAX_NODES_PER_TREE) as u32) << 12
            | share << 20;
        Self { word, value: threshold }
    }

    pub(super) const fn is_leaf(self) -> bool {
        self.word & LEAF != 0
    }

    /// A leaf's value, a fork's threshold.
    pub(super) const fn value(self) -> f32 {
        self.value
    }

    pub(super) const fn feature(self) -> usize {
        self.word as usize % MAX_FEATURES
    }

    /// The number of the left child in the tree.
    pub(super) const fn left(self) -> usize {
        (self.word >> 12) as usize % MAX_NODES_PER_TREE
    }

    /// Share of the training cases that went left, above 0 and below 1.
    pub(super) fn left_share(self) -> f64 {
        f64::from((self.word >> 20 & 0xff).clamp(1, 254)) / 255.0
    }

    /// Which child a row of features goes to, by its number in the tree.
    pub(super) fn next(self, row: &[f32]) -> usize {
        let x = row.get(self.feature()).copied().unwrap_or(f32::NAN);
        let left = if x.is_nan() { self.word & MISSING_LEFT != 0 } else { x <= self.value };
        self.left() + usize::from(!left)
    }
}

/// A sum of trees.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Forest {
    first: Vec<u32>,
    nodes: Vec<Node>,
}

/// Why tensors are no forest.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForestError {
    /// A tensor is missing, or not of its type and length.
    #[error("the tensor `{0}` is missing, or not of its type and length: train anew")]
    Tensor(&'static str),
    /// The nodes are no trees.
    #[error("tree {0} is damaged: fetch the weights again")]
    Tree(usize),
    /// Over [`MAX_TREES`].
    #[error("a forest has at most {MAX_TREES} trees, this one has {0}")]
    TooLarge(usize),
}

impl Forest {
    /// The sum of all trees for a row of features; NaN is missing, and so is what a short row lacks.
    pub fn predict(&self, row: &[f32]) -> f64 {
        self.trees().map(|tree| f64::from(walk(tree, row))).sum()
    }

    /// How many trees there are.
    pub fn len(&self) -> usize {
        self.first.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// The mean of forests: all their trees, leaves divided by how many forests there are.
    pub fn mean(forests: &[&Self]) -> Self {
        let mut mean = Self::default();
        for forest in forests {
            for tree in forest.trees() {
                let scaled = |node: &Node| match node.is_leaf() {
                    true => Node::leaf(node.value() / forests.len() as f32),
                    false => *node,
                };
                mean.push(tree.iter().map(scaled).collect());
            }
        }
        mean
    }

    /// Its tensors, by the names of the format.
    ///
    /// # Errors
    /// If candle cannot make a tensor.
    pub fn tensors(&self) -> candle_core::Result<BTreeMap<String, Tensor>> {
        let words: Vec<u32> = self.nodes.iter().map(|node| node.word).collect();
        let values: Vec<f32> = self.nodes.iter().map(|node| node.value).collect();
        let length = self.nodes.len();
        Ok([
            (FIRST.into(), Tensor::from_vec(self.first.clone(), self.first.len(), &Device::Cpu)?),
            (NODE.into(), Tensor::from_vec(words, length, &Device::Cpu)?),
            (VALUE.into(), Tensor::from_vec(values, length, &Device::Cpu)?),
        ]
        .into())
    }

    /// Takes a forest out of tensors.
    ///
    /// # Errors
    /// If a tensor does not fit, or the nodes are no trees over `features` features.
    pub fn take_from(
        tensors: &mut BTreeMap<String, Tensor>,
        features: usize,
    ) -> Result<Self, ForestError> {
        let mut take = |name: &'static str, of: DType| {
            let tensor = tensors.remove(name).filter(|tensor| tensor.dtype() == of);
            tensor.ok_or(ForestError::Tensor(name))
        };
        let (first, words) = (take(FIRST, DType::U32)?, take(NODE, DType::U32)?);
        let values = take(VALUE, DType::F32)?;
        let first = first.to_vec1::<u32>().map_err(|_| ForestError::Tensor(FIRST))?;
        let words = words.to_vec1::<u32>().map_err(|_| ForestError::Tensor(NODE))?;
        let values = values.to_vec1::<f32>().map_err(|_| ForestError::Tensor(VALUE))?;
        if words.len() != values.len() {
            return Err(ForestError::Tensor(VALUE));
        }
        if first.len() > MAX_TREES {
            return Err(ForestError::TooLarge(first.len()));
        }
        let nodes = words.into_iter().zip(values).map(|(word, value)| Node { word, value });
        let forest = Self { first, nodes: nodes.collect() };
        for tree in 0..forest.len() {
            if !forest.is_sound(tree, features) {
                return Err(ForestError::Tree(tree));
            }
        }
        Ok(forest)
    }

    /// Adds a tree; its first node is the root.
    pub(super) fn push(&mut self, tree: Vec<Node>) {
        self.first.push(self.nodes.len() as u32);
        self.nodes.extend(tree);
    }

    /// The nodes of each tree.
    pub(super) fn trees(&self) -> impl Iterator<Item = &[Node]> {
        (0..self.len()).map(|tree| self.tree(tree))
    }

    fn tree(&self, tree: usize) -> &[Node] {
        let end = self.first.get(tree + 1).map_or(self.nodes.len(), |next| *next as usize);
        self.first.get(tree).and_then(|first| self.nodes.get(*first as usize..end)).unwrap_or(&[])
    }

    fn is_sound(&self, tree: usize, features: usize) -> bool {
        let nodes = self.tree(tree);
        let fits = |(at, node): (usize, &Node)| {
            let (left, finite) = (node.left(), node.value().is_finite());
            let forks = left > at && left + 1 < nodes.len() && node.feature() < features;
            finite && (node.is_leaf() || forks)
        };
        !nodes.is_empty() && nodes.len() <= MAX_NODES_PER_TREE && nodes.iter().enumerate().all(fits)
    }
}

/// The value of the leaf that a row comes to.
fn walk(tree: &[Node], row: &[f32]) -> f32 {
    let mut at = 0;
    while let Some(node) = tree.get(at) {
        if node.is_leaf() {
            return node.value();
        }
        at = node.next(row);
    }
    0.0
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// x₀ ≤ 1 (missing goes left): 2, else by x₁ ≤ 5 (missing goes right): -1 or 4.
    pub(crate) fn forest() -> Forest {
        let mut forest = Forest::default();
        forest.push(vec![
            Node::fork(0, 1.0, true, 1, 0.5),
            Node::leaf(2.0),
            Node::fork(1, 5.0, false, 3, 0.25),
            Node::leaf(-1.0),
            Node::leaf(4.0),
        ]);
        forest.push(vec![Node::leaf(0.5)]);
        forest
    }

    #[test]
    fn rows_come_to_their_leaves() {
        let forest = forest();
        for (row, sum) in [
            ([0.0, 9.0], 2.5),
            ([1.0, 0.0], 2.5),
            ([f32::NAN, 0.0], 2.5),
            ([2.0, 5.0], -0.5),
            ([2.0, 6.0], 4.5),
            ([2.0, f32::NAN], 4.5),
        ] {
            assert_eq!(forest.predict(&row), sum, "{row:?}");
            assert_eq!(Forest::mean(&[&forest, &forest]).predict(&row), sum);
        }
        assert_eq!(forest.predict(&[]), 2.5);
    }

    #[test]
    fn tensors_come_back_and_damage_is_found() {
        let take = |forest: &Forest, features| {
            let mut tensors = forest.tensors().unwrap();
            let taken = Forest::take_from(&mut tensors, features);
            assert!(tensors.is_empty());
            taken
        };
        assert_eq!(take(&forest(), 2), Ok(forest()));
        assert_eq!(take(&forest(), 1), Err(ForestError::Tree(0)));
        for (at, node) in [
            (0, Node::fork(0, 1.0, true, 0, 0.5)),
            (2, Node::fork(1, 1.0, true, 4, 0.5)),
            (0, Node::fork(0, f32::NAN, true, 1, 0.5)),
        ] {
            let mut damaged = forest();
            damaged.nodes[at] = node;
            assert_eq!(take(&damaged, 2), Err(ForestError::Tree(0)));
        }
        let mut tensors = forest().tensors().unwrap();
        tensors.remove(VALUE);
        assert_eq!(Forest::take_from(&mut tensors, 2), Err(ForestError::Tensor(VALUE)));
    }
}
