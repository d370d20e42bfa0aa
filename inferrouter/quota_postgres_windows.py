"""The SQL text that moves and corrects a count inside a PostgreSQL server: the arithmetic of `quota_windows` in PL/pgSQL.

Strategy: functions of a bucket's row, or of its slots and blocks, that change nothing by themselves and answer NULL where only
Python knows. A name carries a version, and a text once released is not changed: old and new programs share a ledger. The texts
hold no percent sign, which some drivers would take for a parameter. Must never know of tables, zones or limits.
"""

from __future__ import annotations

WINDOWS = (
    """
CREATE OR REPLACE FUNCTION {schema}.with_charge_1(blocks float8[], first float8, last float8,
  charge float8, low float8, high float8) RETURNS float8[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  i integer := 1;
BEGIN
  WHILE i < coalesce(array_length(blocks, 1), 0) LOOP
    IF blocks[i] < high AND blocks[i + 1] > low THEN
      blocks[i] := least(blocks[i], first);
      blocks[i + 1] := greatest(blocks[i + 1], last);
      blocks[i + 2] := blocks[i + 2] + charge;
      RETURN blocks;
    END IF;
    EXIT WHEN blocks[i] >= high;
    i := i + 3;
  END LOOP;
  RETURN blocks[1 : i - 1] || ARRAY[first, last, charge] || blocks[i : array_length(blocks, 1)];
END $$""",
    """
CREATE OR REPLACE FUNCTION {schema}.merged_1(blocks float8[], low float8, high float8)
  RETURNS float8[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  i integer; place integer; away float8; blurred float8; share float8; best float8;
BEGIN
  WHILE coalesce(array_length(blocks, 1), 0) > 24 LOOP
    place := 0;
    FOR i IN 4 .. array_length(blocks, 1) BY 3 LOOP
      away := greatest(low - blocks[i + 1], blocks[i - 3] - high);
      IF away >= 0 THEN
        blurred := blocks[i] - blocks[i - 2] + (blocks[i + 1] - blocks[i - 3]) / 8;
        share := blurred / (blurred + away);
        IF place = 0 OR share < best THEN
          best := share;
          place := i;
        END IF;
      END IF;
    END LOOP;
    EXIT WHEN place = 0;
    blocks := blocks[1 : place - 3] || ARRAY[blocks[place + 1], blocks[place - 1] + blocks[place + 2]]
      || blocks[place + 3 : array_length(blocks, 1)];
  END LOOP;
  RETURN blocks;
END $$""",
    """
CREATE OR REPLACE FUNCTION {schema}.counted_1(slots jsonb, blocks float8[], at float8,
  OUT used float8, OUT here float8, OUT plain boolean) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  most float8; i integer; beside float8 := 0;
BEGIN
  SELECT coalesce(sum(value::float8 ORDER BY key::float8) FILTER (WHERE key::float8 BETWEEN at - 64 AND at), 0),
    coalesce(bool_and(key::float8 <= at), true), coalesce(sum(value::float8) FILTER (WHERE key::float8 = at), 0)
    INTO used, plain, here FROM jsonb_each_text(slots);
  most := used;
  IF NOT plain THEN
    FOR i IN 1 .. 64 LOOP
      used := used + coalesce((slots ->> (at + i)::bigint::text)::float8, 0)
        - coalesce((slots ->> (at + i - 65)::bigint::text)::float8, 0);
      most := greatest(most, used);
    END LOOP;
  END IF;
  i := 1;
  WHILE i < coalesce(array_length(blocks, 1), 0) LOOP
    IF blocks[i] < at + 65 AND blocks[i + 1] > at - 64 THEN
      IF blocks[i + 1] - blocks[i] > 512 THEN
        used := NULL;
        RETURN;
      END IF;
      beside := beside + blocks[i + 2];
    END IF;
    i := i + 3;
  END LOOP;
  used := most + beside;
  plain := plain AND beside = 0;
END $$""",
    """
CREATE OR REPLACE FUNCTION {schema}.moved_2(b {schema}.bucket, want float8, last float8)
  RETURNS {schema}.bucket LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  own float8 := b.used - b.older;
  had float8 := 0;
  near float8; far float8; i integer; others float8[] := ARRAY[]::float8[];
  folds boolean; kept jsonb := b.slots; one record; now record;
BEGIN
  IF last IS NOT NULL THEN
    IF own > 0 THEN
      b.blocks := {schema}.with_charge_1(b.blocks, b.wid, b.ends, own, b.wid, b.ends);
    END IF;
    i := 1;
    WHILE i < coalesce(array_length(b.blocks, 1), 0) LOOP
      IF b.blocks[i] < last AND b.blocks[i + 1] > want THEN
        IF b.blocks[i] <> want OR b.blocks[i + 1] <> last THEN
          RETURN NULL;
        END IF;
        had := had + b.blocks[i + 2];
      ELSE
        others := others || b.blocks[i : i + 2];
      END IF;
      i := i + 3;
    END LOOP;
    b.blocks := {schema}.merged_1(others, want, last);
    b.wid := want; b.ends := last; b.used := had; b.older := 0;
    RETURN b;
  END IF;
  near := floor(want / 64);
  folds := near <> floor(b.wid / 64);
  IF own > 0 THEN
    kept := kept || jsonb_build_object(b.wid::bigint::text, own);
  END IF;
  IF folds THEN
    FOR one IN SELECT key, key::float8 AS slot, value::float8 AS charge FROM jsonb_each_text(kept) ORDER BY key::float8 LOOP
      far := floor(one.slot / 64);
      IF abs(far - near) > 1 THEN
        b.blocks := {schema}.with_charge_1(b.blocks, one.slot, one.slot + 1, one.charge, far * 64, far * 64 + 64);
        kept := kept - one.key;
      END IF;
    END LOOP;
    b.blocks := {schema}.merged_1(b.blocks, want - 64, want + 65);
  END IF;
  now := {schema}.counted_1(kept, b.blocks, want);
  IF now.used IS NULL THEN
    RETURN NULL;
  END IF;
  b.slots := kept - want::bigint::text; b.wid := want; b.used := now.used; b.older := now.used - now.here; b.plain := now.plain;
  RETURN b;
END $$""",
    """
CREATE OR REPLACE FUNCTION {schema}.corrected_1(b {schema}.bucket, slot text, held float8, after float8)
  RETURNS {schema}.bucket LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  own float8 := b.used - b.older; now record;
BEGIN
  b.slots := CASE WHEN after = 0 THEN b.slots - slot ELSE b.slots || jsonb_build_object(slot, after) END;
  IF b.plain AND slot::float8 < b.wid THEN
    IF slot::float8 >= b.wid - 64 THEN
      b.used := b.used + (after - held);
      b.older := b.older + (after - held);
    END IF;
    RETURN b;
  END IF;
  now := {schema}.counted_1(b.slots || jsonb_build_object(b.wid::bigint::text, own), b.blocks, b.wid);
  IF now.used IS NULL OR array_length(b.blocks, 1) > 24 THEN
    RETURN NULL;
  END IF;
  b.used := now.used; b.older := now.used - own; b.plain := now.plain;
  RETURN b;
END $$""",
)
