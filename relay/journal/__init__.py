"""The journal of a stream: what it has accepted and NATS has not acknowledged, in files of one directory.

The stream actor (actors/stream/journal_writer.py) appends what the window accepted and acknowledges what NATS
has stored; the window reads spilled batches back, and the next incarnation all of it. The journal knows no
stream and no exchange: it stores encoded batches. ADR 4 says why there is no lock. It does file I/O, and is
not under relay.adapters: the files are its data structure, and whether a batch may be forgotten, claimed or
cut off depends on what is in them at that moment.

# Invariants

1. Offsets rise through all segments and incarnations. A batch holds the offsets `offset` to `offset +
   records - 1`, and batches never overlap; offsets may be missing.
2. A file belongs to the epoch that its name begins with, its owner. Only the owner writes to it; a later
   incarnation may claim it by renaming it, or remove it.
3. A segment holds batches of one epoch only, its writer's, and is only appended to. The one exception is a
   write that failed: what it left is cut off at once.
4. An append takes effect as a whole or not at all. It survives a kill of the process, since the page cache
   has it; a loss of power only with `sync`.
5. The acknowledged offset never goes down. It may lag behind the truth, which costs a repeat that NATS
   recognises by its message id; it never runs ahead, which would cost a loss.

# File names

All in one directory, mode 0700, files 0600; numbers have 20 decimal digits. `<owner>` and `<writer>` are
epochs.

- `<owner>-<first offset>-<writer>.seg`: a segment, batches end to end. No record in it has a lower offset.
- `<owner>.cursor`: the acknowledged offset, mapped into memory.
- `<epoch>.floor`: empty; every later incarnation chooses an epoch above this one. Written when NATS knew of
  an epoch above ours, whatever the disk says; it may exist without segments.
- `open-holes.json`: gaps that REST has still to fill (relay/journal/open_gaps_file.py); replaced as a
  whole.

Other names are ignored and left alone.

# Batches in a segment

Little endian. The same bytes go over the link, so relay/model/record_batch.py encodes and decodes them. For
a batch of n records:

    at          type      field
    0           u32       length: bytes after the checksum, 49 to 4 MiB
    4           u32       crc32 (zlib) of those bytes
    8           u8        kind: 0 event, 1 rejected, 2 loss, 3 healed, 4 repair
    9           u32       records: n, at least 1
    13          u64       offset of the first record
    21          u64       epoch of the writer
    29          u64       seq of the first record; a side record repeats the last event's
    37          u64       recv_ns: when the records were read, in ns since 1970
    45          i64[n]    event_id of each record, -1 without one
    45 + 8n     u32[n]    size of each payload
    45 + 12n    bytes     payloads, end to end

A batch has at most 128 records. It is closed at 64 KiB, so a longer one holds a single record.

# The cursor

24 bytes: the acknowledged offset (u64) and the crc32 of these 8 bytes (u32), both twice. A kill damages one
copy at most; of the intact copies the smaller counts, and 0 with none intact. A store is a memory write and
no system call (0.5 us).

# Epochs and claims

An epoch is milliseconds since 1970, or one more than the highest in any file name, whichever is more. An
incarnation that opens the journal

1. refuses an epoch that is not above every epoch in the directory,
2. claims the segments in force by renaming them to its own epoch (a segment that its predecessor removed in
   between was acknowledged),
3. reads the highest cursor, and each claimed segment up to the first offset of the next one,
4. creates its own cursor, then its own segment, which begins behind the last offset found.

From step 4 on, whatever a stopped predecessor appends or creates when it wakes up is ignored: it lies at or
above that first offset, or in a file that was not claimed. Of segments that a killed claim left with two
owners, those count whose owner is not below the writer of the newest segment.

# What is deleted, by what and when

- Opening removes every file of an epoch up to its own, except its cursor and the claimed segments that hold
  unacknowledged records. Files of later epochs are never touched.
- Acknowledging removes segments from the front whose last offset is acknowledged, never the one that is
  appended to.
- A new segment begins when the next append would make it longer than 16 MiB (or a quarter of `max_bytes`,
  if that is less), after a failed write, and when all is acknowledged and it is longer than 1 MiB: most
  files then go before the kernel, which waits 30 s by default, has written them to the disk.
- An append that would exceed `max_bytes` is refused with JournalError. Reading from the exchange stops
  before.

# Damage

Damage is bytes that are no intact batch: too short, an impossible length, a wrong checksum, or an offset
that does not rise. Reading continues at the next intact batch of the same epoch, which is searched for by its
epoch field.

- A damaged tail reaches the end of the newest segment. It looks like an append that a kill cut short, whose
  records were not accepted: `Damage.records_lost` is None.
- Damage in the middle, or at the end of an older segment, has taken the offsets up to the next batch that
  were not acknowledged; `records_lost` is their number. Which of them NATS has stored already is known once a
  publisher has sent the stored position; the others go to the loss ledger (relay/journal/damage.py).
"""
