//! How one event lies on disk: the value of the table row whose key is the event's revision.
//!
//! Layout, little endian: kind (1 byte), create revision (8), revision of the entry it replaced or 0 (8),
//! key length (2), key, value. Never changes without a new `FORMAT` in `file`.

use crate::Revision;

const HEADER: usize = 19;
const PUT: u8 = 1;
const DELETE: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) key: &'a str,
    /// 0 for a deletion.
    pub(super) created: Revision,
    /// 0 when the key did not exist before.
    pub(super) previous: Revision,
    pub(super) value: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn encoded_len(&self) -> usize {
        HEADER + self.key.len() + self.value.len()
    }

    /// Writes into `out`, which is `encoded_len` bytes long. Keys are at most `MAX_KEY_BYTES`, so 2 bytes hold the length.
    pub(super) fn encode(&self, out: &mut [u8]) {
        let key_end = HEADER + self.key.len();
        out[0] = if self.created == 0 { DELETE } else { PUT };
        out[1..9].copy_from_slice(&self.created.to_le_bytes());
        out[9..17].copy_from_slice(&self.previous.to_le_bytes());
        out[17..HEADER].copy_from_slice(&(self.key.len() as u16).to_le_bytes());
        out[HEADER..key_end].copy_from_slice(self.key.as_bytes());
        out[key_end..].copy_from_slice(self.value);
    }

    /// `None` when the bytes are not a record.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let created = Revision::from_le_bytes(header[1..9].try_into().ok()?);
        let previous = Revision::from_le_bytes(header[9..17].try_into().ok()?);
        let key_len = u16::from_le_bytes(header[17..HEADER].try_into().ok()?);
        let (key, value) = rest.split_at_checked(usize::from(key_len))?;
        let well_formed = match header[0] {
            PUT => created != 0,
            DELETE => created == 0 && value.is_empty(),
            _ => false,
        };
        let key = std::str::from_utf8(key).ok()?;
        (well_formed && !key.is_empty()).then_some(Record { key, created, previous, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(record: &Record<'_>) -> Vec<u8> {
        let mut out = vec![0; record.encoded_len()];
        record.encode(&mut out);
        out
    }

    #[test]
    fn round_trip() {
        for record in [
            Record { key: "a", created: 1, previous: 0, value: b"" },
            Record { key: "pods/default/é", created: 7, previous: u64::MAX, value: b"{}" },
            Record { key: "a", created: 0, previous: 9, value: b"" },
        ] {
            assert_eq!(Record::decode(&bytes(&record)), Some(record));
        }
    }

    #[test]
    fn refuses_what_is_no_record() {
        let good = bytes(&Record { key: "key", created: 1, previous: 0, value: b"v" });
        for cut in 0..HEADER + 3 {
            assert_eq!(Record::decode(&good[..cut]), None, "{cut}");
        }
        for (at, byte) in [(0, 3), (0, 2), (1, 0), (HEADER, 0xff), (18, 1)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Record::decode(&bad), None, "byte {at}");
        }
    }
}
