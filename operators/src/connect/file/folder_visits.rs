//! Limits which folders a listing descends into. Symbolic links can lead back to a parent folder,
//! or to one folder over exponentially many paths, or into the kernel's file systems, which are
//! infinite.

use std::collections::HashMap;
use std::fs::Metadata;
use std::path::Path;

/// Maximum depth of subfolders.
const DEPTH_MAX: usize = 64;
/// The maximum number of paths through links by which one folder is visited.
const VISITS_MAX: u32 = 100;
/// Virtual file systems of the kernel. Their files refer to processes and devices.
const KERNEL_FOLDERS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The identity of a folder: its device and its inode.
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Option<Identity> {
    None
}

/// The stack of open folders of a listing, and the visit counts of folders reached through links.
#[derive(Debug, Default)]
pub(super) struct FolderVisits {
    /// The identities of the open folders, from the root to the current one.
    open: Vec<Option<Identity>>,
    /// The number of open folders that were reached through a link.
    links: usize,
    /// The number of visits to each folder that was reached through a link, its own or a parent's.
    linked: HashMap<Identity, u32>,
}

/// An open folder, to be handed back to [`FolderVisits::leave`].
#[derive(Debug)]
#[must_use]
pub(super) struct OpenFolder {
    is_link: bool,
}

impl FolderVisits {
    /// Enters a subfolder of `parent`, or returns the reason why it is skipped. The root has no
    /// parent.
    pub fn enter(
        &mut self,
        path: &Path,
        metadata: &Metadata,
        is_link: bool,
        parent: Option<&Path>,
    ) -> Result<OpenFolder, &'static str> {
        if self.open.len() > DEPTH_MAX {
            return Err("a folder nested more than 64 levels deep");
        }
        let identity = identity(metadata);
        if identity.is_some() && self.open.contains(&identity)
            || is_link && leads_back(path, parent)
        {
            return Err("a link to a folder that contains it");
        }
        if is_link && (is_of_kernel(path) || parent.is_some_and(is_of_kernel)) {
            return Err("a link to a folder in or from /proc, /sys or /dev");
        }
        if (is_link || self.links > 0)
            && let Some(identity) = identity
        {
            let visits = self.linked.entry(identity).or_default();
            *visits += 1;
            if *visits > VISITS_MAX {
                return Err("a folder that is reachable through more than 100 link paths");
            }
        }
        self.open.push(identity);
        self.links += usize::from(is_link);
        Ok(OpenFolder { is_link })
    }

    /// Whether the current folder is not the root.
    pub fn is_below_root(&self) -> bool {
        self.open.len() > 1
    }

    /// Leaves the folder that was entered last.
    pub fn leave(&mut self, folder: OpenFolder) {
        self.open.pop();
        self.links -= usize::from(folder.is_link);
    }
}

/// Whether a link in `folder` leads to the folder or one of its parents. False if either cannot be
/// resolved.
fn leads_back(link: &Path, folder: Option<&Path>) -> bool {
    match (link.canonicalize(), folder.and_then(|folder| folder.canonicalize().ok())) {
        (Ok(target), Some(folder)) => folder.starts_with(target),
        _ => false,
    }
}

fn is_of_kernel(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    // `/dev/shm` (shared memory) is an ordinary file system.
    KERNEL_FOLDERS.iter().any(|folder| path.starts_with(folder)) && !path.starts_with("/dev/shm")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Counts the folders below a folder, and collects the reasons for skipped ones.
    fn walk(path: &Path, visits: &mut FolderVisits, seen: &mut (usize, Vec<&'static str>)) {
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let (below, is_link) = (entry.path(), entry.file_type().unwrap().is_symlink());
            let Ok(metadata) = std::fs::metadata(&below) else { continue };
            if !metadata.is_dir() {
                continue;
            }
            match visits.enter(&below, &metadata, is_link, Some(path)) {
                Ok(open) => {
                    seen.0 += 1;
                    walk(&below, visits, seen);
                    visits.leave(open);
                }
                Err(why) => seen.1.push(why),
            }
        }
    }

    fn visit(root: &Path) -> (usize, Vec<&'static str>) {
        let (mut visits, mut seen) = (FolderVisits::default(), (0, Vec::new()));
        let metadata = std::fs::metadata(root).unwrap();
        let open = visits.enter(root, &metadata, false, None).unwrap();
        walk(root, &mut visits, &mut seen);
        visits.leave(open);
        (seen.0, seen.1)
    }

    #[test]
    fn links_cannot_make_a_listing_endless() {
        let root = std::env::temp_dir().join(format!("millstream-visits-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&root));
        // Each folder has two links to the next one, so 2^40 paths lead to the last.
        let folder = |i: usize| root.join("store").join(i.to_string());
        for i in 0..=40 {
            std::fs::create_dir_all(folder(i)).unwrap();
        }
        for i in 0..40 {
            symlink(folder(i + 1), folder(i).join("a")).unwrap();
            symlink(folder(i + 1), folder(i).join("b")).unwrap();
        }
        let (folders, passed_over) = visit(&folder(0));
        assert!((40..10_000).contains(&folders), "{folders}");
        assert!(passed_over.iter().all(|why| why.contains("100 link paths")), "{passed_over:?}");

        let tree = root.join("tree");
        std::fs::create_dir_all(tree.join("below")).unwrap();
        symlink(&tree, tree.join("below/up")).unwrap();
        symlink("/proc/self/fd", tree.join("open_files")).unwrap();
        let (folders, passed_over) = visit(&tree);
        assert_eq!((folders, passed_over.len()), (1, 2), "{passed_over:?}");

        // A folder to which two links lead is listed twice, as other tools do.
        let pair = root.join("pair");
        std::fs::create_dir_all(&pair).unwrap();
        symlink(folder(40), pair.join("x")).unwrap();
        symlink(folder(40), pair.join("y")).unwrap();
        assert_eq!(visit(&pair), (2, Vec::new()));
        std::fs::remove_dir_all(root).unwrap();
    }
}
