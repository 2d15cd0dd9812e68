//! The laws of the pool.

use super::tree::{Node, NodeId};
use super::{ExtentChain, ExtentPool};

impl ExtentPool {
    /// Checks every law against all chains that hold blocks.
    pub(super) fn check<'a>(&self, chains: impl Iterator<Item = &'a ExtentChain>) {
        let tree = &self.tree;
        let mut refs = Vec::new();
        let mut unregistered = 0;
        for chain in chains {
            assert!(chain.attached <= chain.registered && chain.registered <= chain.held, "order of a chain");
            unregistered += chain.held - chain.registered;
            assert_eq!(tree.node(chain.node).end, chain.registered, "a chain is where it registered last");
            let mut id = chain.node;
            while id != 0 {
                let node = tree.node(id);
                let across = node.start < chain.attached && chain.attached < node.end;
                assert!(!across, "what a chain found ends with a node");
                let copy = tree.held_copy(id, chain) as usize;
                refs.resize(refs.len().max(copy + 1), 0);
                refs[copy] += 1;
                id = node.parent;
            }
        }

        let (mut cached, mut idle, mut idle_copies, mut live) = (0, 0, 0, 0);
        let mut children = vec![(0, 0); tree.nodes.len()];
        for (id, node) in self.live_nodes() {
            live += 1;
            self.check_node(id, node);
            let (count, xor) = &mut children[node.parent as usize];
            *count += 1;
            *xor ^= id;
            let mut owners = Vec::new();
            let (mut next, mut older) = (node.oldest, 0);
            assert_ne!(next, 0, "node {id} is cached");
            while next != 0 {
                let copy = &tree.copies[next];
                assert_eq!(copy.node, id, "copy {next} is of its node");
                assert_eq!(
                    copy.refs,
                    refs.get(next as usize).copied().unwrap_or(0),
                    "references of copy {next}"
                );
                assert!(!owners.contains(&copy.owner), "a chain registers a block once");
                owners.push(copy.owner);
                cached += node.len();
                if copy.refs == 0 {
                    idle += node.len();
                    idle_copies += 1;
                }
                assert_eq!(copy.older, older, "copies of node {id}");
                (older, next) = (next, copy.younger);
            }
            assert_eq!(node.youngest, older, "the youngest copy of node {id}");
        }
        let counted = tree.nodes.iter().map(|node| (node.children, node.children_xor));
        assert!(counted.eq(children), "children of all nodes");
        assert_eq!(tree.map.len(), live, "the map has every node once");
        assert_eq!(tree.idle(), idle, "idle blocks");
        let total = self.blank + cached + unregistered + self.reserved;
        assert_eq!(total, self.usable, "blank + cached + unregistered + reserved = usable");

        let (mut id, mut before) = (tree.copies.front(), 0);
        while id != 0 {
            assert_eq!(tree.copies[id].refs, 0, "copy {id} can be evicted");
            assert_eq!(tree.copies.prev(id), before, "neighbours of copy {id}");
            idle_copies -= 1;
            (before, id) = (id, tree.copies.next(id));
        }
        assert_eq!(idle_copies, 0, "every idle copy can be evicted, once");
    }

    fn live_nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let nodes = self.tree.nodes.iter().zip(0..).map(|(node, id)| (id, node));
        nodes.filter(|(_, node)| node.end > 0)
    }

    fn check_node(&self, id: NodeId, node: &Node) {
        let tree = &self.tree;
        assert!(node.start < node.end, "node {id} has blocks");
        assert_eq!(tree.node(node.parent).end, node.start, "node {id} continues its parent");
        assert_eq!(tree.map.get(&node.key), Some(&id), "the map knows node {id}");
        let (first, last) = (node.start * tree.block_tokens(), node.end * tree.block_tokens());
        let (head, tail) = (node.label[0], node.label[node.label.len() - 1]);
        assert!(head.start <= first && first < head.end && last <= tail.end, "the label contains node {id}");
        for pair in node.label.windows(2) {
            assert_eq!(pair[0].end, pair[1].start, "the label of node {id} has no gaps");
        }
    }
}
