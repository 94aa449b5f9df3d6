//! Free times out of open hours and busy spans.

/// `[from, until)` in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub from: i64,
    pub until: i64,
}

impl Span {
    pub fn overlaps(self, other: Span) -> bool {
        self.from < other.until && other.from < self.until
    }

    pub fn contains(self, other: Span) -> bool {
        self.from <= other.from && other.until <= self.until
    }

    /// The part of it that lies in `other`.
    pub fn within(self, other: Span) -> Option<Span> {
        let cut = Span { from: self.from.max(other.from), until: self.until.min(other.until) };
        (cut.from < cut.until).then_some(cut)
    }

    /// `spans` with `hole` cut out.
    pub fn without(spans: &[Span], hole: Span) -> Vec<Span> {
        let sides = |span: &Span| {
            if !span.overlaps(hole) {
                return [Some(*span), None];
            }
            [
                (span.from < hole.from).then_some(Span { until: hole.from, ..*span }),
                (hole.until < span.until).then_some(Span { from: hole.until, ..*span }),
            ]
        };
        spans.iter().flat_map(sides).flatten().collect()
    }

    /// In order, those that touch made one.
    pub fn joined(mut spans: Vec<Span>) -> Vec<Span> {
        spans.sort_unstable();
        let mut out: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match out.last_mut() {
                Some(last) if last.until >= span.from => last.until = last.until.max(span.until),
                _ => out.push(span),
            }
        }
        out
    }
}

/// Starts at which `length_s` fit: inside an open window, clear of everything busy, and at whole steps of `step_s` from
/// the window's begin, so that the day does not fray into useless gaps.
pub fn free(windows: &[Span], busy: &[Span], length_s: i64, step_s: i64) -> Vec<i64> {
    let step_s = step_s.max(60);
    let mut starts = Vec::new();
    for window in windows {
        let mut at = window.from;
        while at + length_s <= window.until {
            let wanted = Span { from: at, until: at + length_s };
            if !busy.iter().any(|b| b.overlaps(wanted)) {
                starts.push(at);
            }
            at += step_s;
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(from: i64, until: i64) -> Span {
        Span { from: from * 60, until: until * 60 }
    }

    #[test]
    fn offers_whole_steps_that_fit() {
        let starts = |busy: &[Span], length: i64| -> Vec<i64> {
            free(&[span(0, 60)], busy, length * 60, 900).into_iter().map(|s| s / 60).collect()
        };
        assert_eq!(starts(&[], 30), [0, 15, 30]);
        assert_eq!(starts(&[span(20, 30)], 15), [0, 30, 45]);
        assert_eq!(starts(&[], 61), [0i64; 0]);
    }

    proptest! {
        #[test]
        fn what_is_offered_is_open_and_nobodys(
            windows in proptest::collection::vec((0i64..1000, 1i64..300), 0..5),
            busy in proptest::collection::vec((0i64..1300, 1i64..100), 0..20),
            length in 1i64..90, step in 1i64..60,
        ) {
            let spans = |of: Vec<(i64, i64)>| of.into_iter().map(|(f, l)| span(f, f + l)).collect::<Vec<_>>();
            let (windows, busy) = (Span::joined(spans(windows)), spans(busy));
            let cut = busy.iter().fold(windows.clone(), |open, hole| Span::without(&open, *hole));
            for start in free(&windows, &busy, length * 60, step * 60) {
                let wanted = Span { from: start, until: start + length * 60 };
                prop_assert!(windows.iter().any(|w| w.contains(wanted)));
                prop_assert!(cut.iter().any(|w| w.contains(wanted)), "two ways to the same answer");
            }
        }
    }
}
