//! Protobuf's wire format: numbered fields, each with a payload.

use super::error::Fault;

/// What a field holds, by wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Payload<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Fault> {
        match self {
            Payload::Bytes(bytes) => Ok(bytes),
            other => Err(other.wrong()),
        }
    }

    pub(super) fn varint(self) -> Result<u64, Fault> {
        match self {
            Payload::Varint(number) => Ok(number),
            other => Err(other.wrong()),
        }
    }

    pub(super) fn wrong(self) -> Fault {
        Fault::WireType(match self {
            Payload::Varint(_) => 0,
            Payload::Fixed64(_) => 1,
            Payload::Bytes(_) => 2,
            Payload::Fixed32 => 5,
        })
    }
}

/// Reads the fields of one message in the order in which they come.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field's number and payload. Groups, which no Kubernetes type has, are refused.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Payload<'a>)>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| *n != 0).ok_or(Fault::Tag(tag >> 3))?;
        let payload = match tag & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => Payload::Fixed64(self.array()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Fault::Truncated)?;
                Payload::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Payload::Fixed32
            }
            other => return Err(Fault::IllegalWireType(other.to_le_bytes()[0])),
        };
        Ok(Some((number, payload)))
    }

    /// A number alone, as packed lists have them; `None` at the end.
    pub(super) fn packed(&mut self) -> Result<Option<u64>, Fault> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(Fault::Truncated)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::Overflow)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array(&mut self) -> Result<[u8; 8], Fault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(message: &[u8]) -> Result<Vec<(u32, Payload<'_>)>, Fault> {
        let mut reader = Reader::new(message);
        std::iter::from_fn(|| reader.next().transpose()).collect()
    }

    #[test]
    fn fields_of_every_wire_type() {
        let message = [
            &[0x08, 0xac, 0x02][..],
            &[0x12, 2, b'h', b'i'],
            &[0x19, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x25, 1, 2, 3, 4],
            &[0x80, 0x01, 1],
        ]
        .concat();
        let want = vec![
            (1, Payload::Varint(300)),
            (2, Payload::Bytes(b"hi")),
            (3, Payload::Fixed64([1, 2, 3, 4, 5, 6, 7, 8])),
            (4, Payload::Fixed32),
            (16, Payload::Varint(1)),
        ];
        assert_eq!(all(&message), Ok(want));
    }

    #[test]
    fn broken_messages() {
        for (message, want) in [
            (&[0x08][..], Fault::Truncated),
            (&[0x12, 5, 1], Fault::Truncated),
            (&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Fault::Truncated),
            (&[0x19, 1, 2], Fault::Truncated),
            (&[0x25, 1], Fault::Truncated),
            (&[0x00, 0], Fault::Tag(0)),
            (&[0x0b], Fault::IllegalWireType(3)),
            (&[0x0f], Fault::IllegalWireType(7)),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Fault::Overflow),
        ] {
            assert_eq!(all(message), Err(want), "{message:x?}");
        }
    }
}
