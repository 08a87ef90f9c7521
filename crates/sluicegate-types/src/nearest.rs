//! What somebody who misspelt a name probably meant.

/// Characters of a word of the file that an error repeats.
pub const MAX_WORD: usize = 64;

/// The known name that is nearest to `name`, if it is near: more than a third wrong is another word.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = shortened(name);
    let nearest = known.into_iter().map(|known| (distance(&name, &shortened(known)), known)).min();
    nearest.filter(|(distance, known)| *distance <= known.len().div_ceil(3)).map(|(_, known)| known)
}

/// `; did you mean NAME?`, or which names there are, or that there are none.
pub fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(meant) = nearest(name, known.iter().copied()) {
        return format!("; did you mean {meant}?");
    }
    match known.as_slice() {
        [] => "; there is none".to_owned(),
        known if known.len() > MAX_LISTED => {
            format!("; there are {} and {} more", known[..MAX_LISTED].join(", "), known.len() - MAX_LISTED)
        }
        known => format!("; there is {}", known.join(", ")),
    }
}

/// The beginning of a word, short enough to be repeated.
pub fn shortened(word: &str) -> String {
    word.chars().take(MAX_WORD).collect()
}

/// Names that an error lists.
pub const MAX_LISTED: usize = 10;

/// How many characters must be inserted, removed or replaced to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (nth, c) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = nth + 1;
        for (at, o) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(c != *o);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        assert_eq!(suggestion("biuld", ["build", "test"]), "; did you mean build?");
        assert_eq!(suggestion("package", ["build", "test"]), "; there is build, test");
        assert_eq!(suggestion("package", []), "; there is none");
        let many: Vec<String> = (0..1000).map(|n| format!("step{n:04}")).collect();
        let found = suggestion(&"w".repeat(100_000), many.iter().map(String::as_str));
        assert!(found.ends_with(" and 990 more") && found.len() < 200, "{found}");
    }
}
