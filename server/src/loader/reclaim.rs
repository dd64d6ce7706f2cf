//! Frees the memory of a library that stays mapped after its model was dropped.
//!
//! For a small plugin, about 750 kB of each generation's file stay resident and count as the server's memory until the kernel
//! needs them. This module asks the kernel to evict them immediately. Pages that are used again, for example by a thread that
//! the plugin left behind, are read from the file again. About 60 kB that the linker has written to stay resident.

use std::path::Path;

use rustix::mm::{Advice, madvise};

/// Asks the kernel to evict this process's mappings of `file`. This is best effort.
pub(super) fn evict(file: &Path) {
    let Ok(maps) = std::fs::read("/proc/self/maps") else {
        return;
    };
    let maps = String::from_utf8_lossy(&maps);
    // Pages that were never written to disk cannot be evicted. Those of an old copy were written long ago.
    let _ = std::fs::File::open(file).and_then(|file| file.sync_data());
    for (start, length) in mappings_of(file, &maps) {
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: Paging out changes which memory is resident, not its content or what is mapped. It is therefore sound for any
        // range, even if it was remapped after the list above was read.
        let _ = unsafe { madvise(start, length, Advice::LinuxPageOut) };
    }
}

/// Start and length of each mapping of `file`, from the text of `/proc/self/maps`.
fn mappings_of<'a>(file: &Path, maps: &'a str) -> impl Iterator<Item = (usize, usize)> + use<'a> {
    let file = file.to_string_lossy().into_owned();
    maps.lines().filter_map(move |line| {
        let path = &line[line.find('/')?..];
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        (path == file).then(|| (start, end.saturating_sub(start)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mappings_of_the_given_file_are_found() {
        let maps = "\
1000-3000 r--p 00000000 fe:00 12    /scratch/generation-1/libx.so
3000-a000 r-xp 00002000 fe:00 12    /scratch/generation-1/libx.so
b000-c000 r-xp 00002000 fe:00 13    /scratch/generation-11/libx.so
c000-d000 rw-p 00000000 00:00 0
d000-e000 rw-p 00000000 00:00 0     [heap]
";
        let found: Vec<_> = mappings_of(Path::new("/scratch/generation-1/libx.so"), maps).collect();
        assert_eq!(found, [(0x1000, 0x2000), (0x3000, 0x7000)]);
    }
}
