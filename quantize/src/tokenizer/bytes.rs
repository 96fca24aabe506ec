//! GPT-2's spelling of bytes as printable characters: token spellings in a GGUF are text.

/// The character that spells a byte: itself where it is printable Latin-1, else one from U+0100 on.
fn spell_byte(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let unprintable_before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + unprintable_before).expect("at most 68 are unprintable")
}

/// Spells a token's bytes.
pub fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| spell_byte(b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spelled_as_gpt_2_does() {
        assert_eq!(spell(b" a\n\x00\x7f\xad\xff"), "ĠaĊĀġŃÿ");
        let all: std::collections::BTreeSet<_> = (0..=255).map(spell_byte).collect();
        assert_eq!(all.len(), 256);
    }
}
