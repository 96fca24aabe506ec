//! From tokens' bytes to text that may be shown: whole characters only, and nothing that may turn
//! out to be part of a stop string. What it says does not depend on how the bytes were cut.

/// What one push made certain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// Text that no later byte can take back; may be empty.
    pub text: String,
    /// The stop string that ended the text, as an index into the list. Nothing follows it, and
    /// neither it nor anything after it is in any text returned.
    pub stopped: Option<usize>,
}

/// Turns bytes into text, as they come.
pub struct TextStream {
    stops: Vec<String>,
    /// The beginning of a character whose end has not come; at most three bytes.
    partial: Vec<u8>,
    /// Text not yet returned: the longest end of it that begins a stop string.
    held: String,
    stopped: bool,
}

impl TextStream {
    /// Empty stop strings are dropped: they would end every text before it began.
    pub fn new(stops: &[String]) -> TextStream {
        TextStream {
            stops: stops.to_vec(),
            partial: Vec::new(),
            held: String::new(),
            stopped: false,
        }
    }

    /// Of several stop strings the one that is complete first ends the text; of those complete at
    /// the same byte, the longest. After a stop nothing more is returned.
    pub fn push(&mut self, bytes: &[u8]) -> Piece {
        if self.stopped {
            return Piece::default();
        }
        self.partial.extend_from_slice(bytes);
        let text = self.take_whole_characters();
        self.release(&text)
    }

    /// No more bytes will come: what was held back is text, an unfinished character is U+FFFD.
    pub fn finish(&mut self) -> Piece {
        if self.stopped {
            return Piece::default();
        }
        let unfinished = !std::mem::take(&mut self.partial).is_empty();
        let mut piece = self.release(if unfinished { "\u{fffd}" } else { "" });
        if piece.stopped.is_none() {
            piece.text.push_str(&std::mem::take(&mut self.held));
        }
        self.stopped = true;
        piece
    }

    /// Whole characters leave `partial`; bytes that can belong to none become U+FFFD.
    fn take_whole_characters(&mut self) -> String {
        let mut text = String::new();
        let mut rest = self.partial.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(whole) => {
                    text.push_str(whole);
                    rest = &[];
                    break;
                }
                Err(e) => {
                    let (whole, tail) = rest.split_at(e.valid_up_to());
                    // What came before the error is valid, so nothing is replaced here.
                    text.push_str(&String::from_utf8_lossy(whole));
                    rest = tail;
                    match e.error_len() {
                        Some(n) => {
                            text.push('\u{fffd}');
                            rest = &rest[n..];
                        }
                        None => break,
                    }
                }
            }
        }
        self.partial = rest.to_vec();
        text
    }

    fn release(&mut self, new: &str) -> Piece {
        // Held text has no complete stop string in it: only its end with the new text may.
        self.held.push_str(new);
        let found = self.stops.iter().enumerate().filter_map(|(i, stop)| {
            let start = self.held.find(stop.as_str()).filter(|_| !stop.is_empty())?;
            Some((start + stop.len(), start, i))
        });
        if let Some((_, start, stop)) = found.min() {
            self.stopped = true;
            self.held.truncate(start);
            return Piece {
                text: std::mem::take(&mut self.held),
                stopped: Some(stop),
            };
        }
        let kept = self.held.len() - self.longest_beginning();
        let tail = self.held.split_off(kept);
        Piece {
            text: std::mem::replace(&mut self.held, tail),
            stopped: None,
        }
    }

    /// Length of the longest end of `held` that is a proper beginning of a stop string.
    fn longest_beginning(&self) -> usize {
        let beginnings = self.stops.iter().map(|stop| {
            let longest = stop.len().saturating_sub(1).min(self.held.len());
            let fits = |&n: &usize| {
                let start = self.held.len() - n;
                self.held.as_bytes()[start..] == stop.as_bytes()[..n]
            };
            // Equal bytes end where a character ends in both, so both begin one there too.
            (1..=longest).rev().find(fits).unwrap_or(0)
        });
        beginnings.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(stops: &[&str], pieces: &[&[u8]]) -> (String, Option<usize>) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut stream = TextStream::new(&stops);
        let mut text = String::new();
        let mut stopped = None;
        for bytes in pieces {
            let piece = stream.push(bytes);
            text += &piece.text;
            stopped = stopped.or(piece.stopped);
        }
        let piece = stream.finish();
        (text + &piece.text, stopped.or(piece.stopped))
    }

    #[test]
    fn a_character_is_not_shown_before_its_last_byte() {
        let mut stream = TextStream::new(&[]);
        let bytes = "é🙂".as_bytes();
        let shown: Vec<String> = bytes.iter().map(|b| stream.push(&[*b]).text).collect();
        assert_eq!(shown, ["", "é", "", "", "", "🙂"]);
    }

    #[test]
    fn bytes_that_are_no_character_are_replaced_once_that_is_certain() {
        assert_eq!(
            all(&[], &[b"a\xff", b"b\xe2\x82", b"c"]).0,
            "a\u{fffd}b\u{fffd}c"
        );
        assert_eq!(all(&[], &[b"x\xf0\x9f"]).0, "x\u{fffd}");
    }

    #[test]
    fn a_stop_string_is_found_across_pieces_and_not_shown() {
        let pieces: [&[u8]; 4] = [b"one t", b"w", b"o three", b" four"];
        assert_eq!(all(&["two"], &pieces), ("one ".into(), Some(0)));
    }

    #[test]
    fn what_only_began_like_a_stop_string_is_shown_in_the_end() {
        let mut stream = TextStream::new(&["stop!".into()]);
        assert_eq!(stream.push(b"do not sto").text, "do not ");
        assert_eq!(stream.push(b"re").text, "store");
        assert_eq!(stream.push(b" sto").text, " ");
        assert_eq!(stream.finish().text, "sto");
    }

    #[test]
    fn overlapping_beginnings_are_not_lost() {
        assert_eq!(
            all(&["aab"], &[b"a", b"a", b"a", b"b", b"c"]),
            ("a".into(), Some(0))
        );
        assert_eq!(
            all(&["abcd", "bc"], &[b"xab", b"c"]),
            ("xa".into(), Some(1))
        );
        assert_eq!(all(&["b", "ab"], &[b"xa", b"b"]), ("x".into(), Some(1)));
    }

    #[test]
    fn a_stop_string_may_begin_inside_a_token_and_inside_a_character() {
        let bytes = "so 🙂好".as_bytes();
        let (head, tail) = bytes.split_at(5);
        assert_eq!(all(&["🙂"], &[head, tail]), ("so ".into(), Some(0)));
    }

    #[test]
    fn nothing_follows_a_stop() {
        let mut stream = TextStream::new(&["x".into()]);
        assert_eq!(stream.push(b"ax").stopped, Some(0));
        assert_eq!(stream.push(b"bbb"), Piece::default());
        assert_eq!(stream.finish(), Piece::default());
    }

    #[test]
    fn an_empty_stop_string_stops_nothing() {
        assert_eq!(all(&[""], &[b"text"]), ("text".into(), None));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(
            bytes in prop::collection::vec(prop::sample::select(b"ab\xc3\xa9\xe2\x82\xac\xff".to_vec()), 0..40),
            stops in prop::collection::vec("[abé€]{0,4}", 0..4),
            cuts in prop::collection::vec(0usize..6, 0..40),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let whole = all(&stops, &[&bytes]);
            let mut rest = bytes.as_slice();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            pieces.push(rest);
            prop_assert_eq!(&all(&stops, &pieces), &whole);
            let lossy = String::from_utf8_lossy(&bytes);
            match whole.1 {
                Some(_) => prop_assert!(lossy.starts_with(&whole.0)),
                None => prop_assert_eq!(&lossy, &whole.0),
            }
        }
    }
}
