//! A new project at a place that stays. cargo knows a package by its path and a file by its time: in a directory of its own for each run,
//! it would compile the SDK each time.

use std::fs;
use std::path::Path;

/// Has `place` hold what is in `new`, and nothing else; what is there already keeps its time.
pub(crate) fn mirror(new: &Path, place: &Path) {
    fs::create_dir_all(place).unwrap();
    for name in names(place) {
        let old = place.join(&name);
        match (new.join(name).exists(), old.is_dir()) {
            (true, _) => {}
            (false, true) => fs::remove_dir_all(old).unwrap(),
            (false, false) => fs::remove_file(old).unwrap(),
        }
    }
    for name in names(new) {
        let (from, to) = (new.join(&name), place.join(name));
        if from.is_dir() {
            mirror(&from, &to);
            continue;
        }
        let bytes = fs::read(&from).unwrap();
        if fs::read(&to).ok().as_ref() != Some(&bytes) {
            fs::write(to, bytes).unwrap();
        }
    }
}

fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}
