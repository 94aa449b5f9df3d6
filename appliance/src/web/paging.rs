//! Lists that are longer than a page: the first are shown, how many more there are is said, and a link leads on.

use maud::{Markup, html};

/// The part of a list that a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paging {
    from: usize,
    most: usize,
    total: usize,
}

/// What a page shows of a list, `most` entries beginning with `from`; where the list ends before that, its last page.
pub fn part<T>(all: &[T], from: usize, most: usize) -> (&[T], Paging) {
    let from = if from < all.len() { from } else { all.len().saturating_sub(1) / most * most };
    let shown = all.get(from..all.len().min(from.saturating_add(most))).unwrap_or(&[]);
    (shown, Paging { from, most, total: all.len() })
}

impl Paging {
    /// How many come after what is shown.
    pub fn rest(&self) -> usize {
        self.total.saturating_sub(self.from.saturating_add(self.most))
    }

    /// Where the page stands in the list, and the ways to the rest; nothing where all is shown. `link` gives the address of the
    /// page that begins with an entry.
    pub fn links(&self, link: impl Fn(usize) -> String) -> Markup {
        let last = self.total - self.rest();
        html! { @if self.from > 0 || self.rest() > 0 {
            nav.pages aria-label="Pages" {
                @if self.from > 0 { a.button href=(link(self.from.saturating_sub(self.most))) { "Previous" } }
                span { (self.from + 1) " to " (last) " of " (self.total) }
                @if self.rest() > 0 { a.button href=(link(last)) { (self.rest()) " more" } }
            }
        } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_on_one_page() {
        for total in [0_usize, 1, 99, 100, 101, 250] {
            let all: Vec<usize> = (0..total).collect();
            let (mut seen, mut from) = (Vec::new(), 0);
            loop {
                let (shown, paging) = part(&all, from, 100);
                seen.extend_from_slice(shown);
                assert_eq!(paging.rest(), total - seen.len());
                from += 100;
                if paging.rest() == 0 {
                    break;
                }
            }
            assert_eq!(seen, all);
            for beyond in [total, total + 1, usize::MAX] {
                assert_eq!(part(&all, beyond, 100).0.last(), all.last(), "{beyond} of {total}");
            }
        }
    }
}
