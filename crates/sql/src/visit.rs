//! A serde serializer that keeps nothing: it only tells a [`Visitor`] which field of which message it is in.
//!
//! Every message of the parse tree derives `Serialize`, so this reaches each node wherever it hangs, also those of
//! future grammars. The parser crate's own node iterator does not (it leaves out LIMIT, RETURNING, ON CONFLICT and others).

use std::fmt::Display;

use serde::ser::{self, Impossible, Serialize};

/// Where the walk is: the message's type and its field, outermost first.
pub(crate) type Frame = (&'static str, &'static str);

/// Hears of each message and of each scalar.
pub(crate) trait Visitor {
    /// A message begins; the frames are those around it.
    fn enter(&mut self, _message: &'static str, _frames: &[Frame]) {}
    /// A message ends; the frames are those around it.
    fn leave(&mut self, _message: &'static str, _frames: &[Frame]) {}
    /// All of a field has been seen; the last frame is the field's.
    fn leave_field(&mut self, _frames: &[Frame]) {}
    /// A string; the last frame is its field.
    fn string(&mut self, _value: &str, _frames: &[Frame]) {}
    /// A boolean; the last frame is its field.
    fn boolean(&mut self, _value: bool, _frames: &[Frame]) {}
}

/// Shows all of `node` to the visitor, depth first, fields in their order of declaration.
pub(crate) fn visit<T: Serialize + ?Sized>(node: &T, visitor: &mut impl Visitor) {
    let mut walk = Walk { visitor, frames: Vec::with_capacity(32) };
    // The walk itself raises no error, and derived implementations have none of their own.
    let _ = node.serialize(&mut walk);
}

struct Walk<'v, V> {
    visitor: &'v mut V,
    frames: Vec<Frame>,
}

#[derive(Debug)]
struct NoError;

impl Display for NoError {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
impl std::error::Error for NoError {}
impl ser::Error for NoError {
    fn custom<T: Display>(_: T) -> Self {
        NoError
    }
}

type Outcome = Result<(), NoError>;

macro_rules! ignored {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, _: $type) -> Outcome { Ok(()) })*
    };
}

impl<'w, 'v, V: Visitor> ser::Serializer for &'w mut Walk<'v, V> {
    type Ok = ();
    type Error = NoError;
    type SerializeSeq = Self;
    type SerializeTuple = Impossible<(), NoError>;
    type SerializeTupleStruct = Impossible<(), NoError>;
    type SerializeTupleVariant = Impossible<(), NoError>;
    type SerializeMap = Impossible<(), NoError>;
    type SerializeStruct = Message<'w, 'v, V>;
    type SerializeStructVariant = Impossible<(), NoError>;

    ignored!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_u8: u8,
        serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_f32: f32, serialize_f64: f64,
        serialize_char: char, serialize_bytes: &[u8]);

    fn serialize_bool(self, value: bool) -> Outcome {
        self.visitor.boolean(value, &self.frames);
        Ok(())
    }
    fn serialize_str(self, value: &str) -> Outcome {
        self.visitor.string(value, &self.frames);
        Ok(())
    }
    fn serialize_none(self) -> Outcome {
        Ok(())
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Outcome {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Outcome {
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Outcome {
        Ok(())
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Outcome {
        Ok(())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Outcome {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Outcome {
        value.serialize(self)
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self, NoError> {
        Ok(self)
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, NoError> {
        Err(NoError)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, NoError> {
        Err(NoError)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NoError> {
        Err(NoError)
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, NoError> {
        Err(NoError)
    }
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Message<'w, 'v, V>, NoError> {
        self.visitor.enter(name, &self.frames);
        self.frames.push((name, ""));
        Ok(Message { walk: self, name })
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NoError> {
        Err(NoError)
    }
}

impl<V: Visitor> ser::SerializeSeq for &mut Walk<'_, V> {
    type Ok = ();
    type Error = NoError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Outcome {
        value.serialize(&mut **self)
    }
    fn end(self) -> Outcome {
        Ok(())
    }
}

struct Message<'w, 'v, V> {
    walk: &'w mut Walk<'v, V>,
    name: &'static str,
}

impl<V: Visitor> ser::SerializeStruct for Message<'_, '_, V> {
    type Ok = ();
    type Error = NoError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, field: &'static str, value: &T) -> Outcome {
        if let Some(frame) = self.walk.frames.last_mut() {
            frame.1 = field;
        }
        value.serialize(&mut *self.walk)?;
        self.walk.visitor.leave_field(&self.walk.frames);
        Ok(())
    }
    fn end(self) -> Outcome {
        self.walk.frames.pop();
        self.walk.visitor.leave(self.name, &self.walk.frames);
        Ok(())
    }
}
