//! The disk's last word, by place.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_metadata_client::EntryId;

use crate::stat::{Inode, NodeKind, Stat};

/// A node of the local tree, for as long as something stands at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalId(pub u64);

impl LocalId {
    /// The root folder.
    pub const ROOT: Self = Self(0);
}

/// What stands at a place.
#[derive(Debug, Clone)]
pub struct Node {
    /// The folder it is in; the root is in itself.
    pub parent: LocalId,
    /// Its name.
    pub name: String,
    /// Its last stat.
    pub stat: Stat,
    /// What is in a folder.
    pub children: BTreeMap<String, LocalId>,
    /// The entry it is known as.
    pub entry: Option<EntryId>,
    /// A folder that cannot be listed (no permission, another file system): nothing is known of what is in it.
    pub opaque: bool,
}

/// All places below the root.
#[derive(Debug, Default)]
pub struct Local {
    nodes: HashMap<LocalId, Node>,
    by_inode: HashMap<Inode, BTreeSet<LocalId>>,
    last_id: u64,
}

impl Local {
    /// A tree that knows only its root.
    pub fn new(root: Stat) -> Self {
        let node = Node {
            parent: LocalId::ROOT,
            name: String::new(),
            stat: root,
            children: BTreeMap::new(),
            entry: Some(EntryId::ROOT),
            opaque: false,
        };
        Self { nodes: HashMap::from([(LocalId::ROOT, node)]), by_inode: HashMap::new(), last_id: 0 }
    }

    /// A node that still stands.
    pub fn get(&self, id: LocalId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: LocalId) -> Option<&mut Node> {
        self.nodes.get_mut(&id)
    }

    /// How many places are taken, the root included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing but the root stands.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    /// What stands under a name in a folder.
    pub fn child(&self, parent: LocalId, name: &str) -> Option<LocalId> {
        self.nodes.get(&parent)?.children.get(name).copied()
    }

    /// The names from the root down to a node; empty for the root, none for one that is gone.
    pub fn path(&self, id: LocalId) -> Option<Vec<&str>> {
        let mut names = Vec::new();
        let mut at = id;
        while at != LocalId::ROOT {
            let node = self.nodes.get(&at)?;
            names.push(node.name.as_str());
            at = node.parent;
        }
        names.reverse();
        Some(names)
    }

    /// Whether `id` is `above` or lies below it.
    pub fn is_within(&self, id: LocalId, above: LocalId) -> bool {
        let mut at = id;
        loop {
            if at == above {
                return true;
            }
            match self.nodes.get(&at) {
                Some(node) if at != LocalId::ROOT => at = node.parent,
                _ => return false,
            }
        }
    }

    /// All nodes with an inode: several when a file has several names.
    pub fn with_inode(&self, inode: Inode) -> impl Iterator<Item = LocalId> + '_ {
        self.by_inode.get(&inode).into_iter().flatten().copied()
    }

    /// A node and all below it, folders before what is in them.
    pub fn subtree(&self, id: LocalId) -> Vec<LocalId> {
        let mut found = vec![id];
        let mut next = 0;
        while let Some(at) = found.get(next) {
            if let Some(node) = self.nodes.get(at) {
                found.extend(node.children.values().copied());
            }
            next += 1;
        }
        found
    }

    pub(crate) fn insert(&mut self, parent: LocalId, name: &str, stat: Stat) -> LocalId {
        self.last_id += 1;
        let id = LocalId(self.last_id);
        self.by_inode.entry(stat.inode).or_default().insert(id);
        if let Some(folder) = self.nodes.get_mut(&parent) {
            folder.children.insert(name.to_owned(), id);
        }
        let name = name.to_owned();
        let node = Node { parent, name, stat, children: BTreeMap::new(), entry: None, opaque: false };
        self.nodes.insert(id, node);
        id
    }

    /// Takes out a node and all below it; answers them.
    pub(crate) fn remove(&mut self, id: LocalId) -> Vec<(LocalId, Node)> {
        let mut taken = Vec::new();
        for id in self.subtree(id) {
            let Some(node) = self.nodes.remove(&id) else { continue };
            if let Some(folder) = self.nodes.get_mut(&node.parent)
                && folder.children.get(&node.name) == Some(&id)
            {
                folder.children.remove(&node.name);
            }
            if let Some(same) = self.by_inode.get_mut(&node.stat.inode) {
                same.remove(&id);
                if same.is_empty() {
                    self.by_inode.remove(&node.stat.inode);
                }
            }
            taken.push((id, node));
        }
        taken
    }

    /// Puts a node under another name or folder; its id and what is in it stay.
    pub(crate) fn relocate(&mut self, id: LocalId, parent: LocalId, name: &str) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (old_parent, old_name) = (node.parent, std::mem::replace(&mut node.name, name.to_owned()));
        node.parent = parent;
        if let Some(folder) = self.nodes.get_mut(&old_parent) {
            folder.children.remove(&old_name);
        }
        if let Some(folder) = self.nodes.get_mut(&parent) {
            folder.children.insert(name.to_owned(), id);
        }
    }

    /// All nodes that stay local.
    pub fn others(&self) -> impl Iterator<Item = LocalId> + '_ {
        self.nodes.iter().filter(|(_, node)| node.stat.kind == NodeKind::Other).map(|(id, _)| *id)
    }
}
