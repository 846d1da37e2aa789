//! Who needs whom among the instances of a pipeline.

use std::collections::BTreeSet;

use petgraph::{
    Direction,
    graph::{DiGraph, NodeIndex},
    visit::{Bfs, Reversed},
};

use crate::config::Pipeline;

/// The instances as a graph; an edge goes from an input to its user.
#[derive(Debug)]
pub struct Graph {
    graph: DiGraph<(), ()>,
    order: Vec<usize>,
}

impl Graph {
    /// The graph of a pipeline, which has no cycle by construction.
    pub fn new(pipeline: &Pipeline) -> Self {
        let mut graph = DiGraph::with_capacity(pipeline.instances.len(), 0);
        for _ in &pipeline.instances {
            graph.add_node(());
        }
        for (user, instance) in pipeline.instances.iter().enumerate() {
            // One edge per pair; to ask the graph would be slow where many use one output.
            for input in instance.inputs.values().collect::<BTreeSet<_>>() {
                graph.add_edge(NodeIndex::new(*input), NodeIndex::new(user), ());
            }
        }
        let order = petgraph::algo::toposort(&graph, None)
            .expect("inputs come before their users, so there is no cycle");
        Self { graph, order: order.into_iter().map(NodeIndex::index).collect() }
    }

    /// All instances, inputs before their users.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The instances that take an instance's output.
    pub fn users(&self, index: usize) -> Vec<usize> {
        self.neighbours(index, Direction::Outgoing)
    }

    /// The instances whose output an instance takes.
    pub fn inputs(&self, index: usize) -> Vec<usize> {
        self.neighbours(index, Direction::Incoming)
    }

    /// An instance and all that its output reaches.
    pub fn descendants(&self, index: usize) -> Vec<usize> {
        let mut walk = Bfs::new(&self.graph, NodeIndex::new(index));
        let mut found: Vec<_> =
            std::iter::from_fn(|| walk.next(&self.graph)).map(NodeIndex::index).collect();
        found.sort_unstable();
        found
    }

    /// An instance and all that it needs.
    pub fn ancestors(&self, index: usize) -> Vec<usize> {
        let reversed = Reversed(&self.graph);
        let mut walk = Bfs::new(reversed, NodeIndex::new(index));
        let mut found: Vec<_> =
            std::iter::from_fn(|| walk.next(reversed)).map(NodeIndex::index).collect();
        found.sort_unstable();
        found
    }

    fn neighbours(&self, index: usize, direction: Direction) -> Vec<usize> {
        let mut found: Vec<_> = self
            .graph
            .neighbors_directed(NodeIndex::new(index), direction)
            .map(NodeIndex::index)
            .collect();
        found.sort_unstable();
        found
    }
}
