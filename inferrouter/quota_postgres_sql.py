"""The SQL text that counts inside a PostgreSQL server: tables, and the function that does a batch of operations in one step.

Strategy: the same protocol as `quota_redis_lua`, in PL/pgSQL. The function locks the rows of a batch in the order of their names,
so that nobody waits in a circle, sums up what happens all the time and writes it once, does one operation at a time what is
rarer, and hands the rest back. Numbers are float8, which PostgreSQL reads and writes to the last bit. Functions carry the
version in their names, so that old and new programs share a ledger. The texts hold no percent sign, which some drivers would
take for a parameter. Must never know of zones or limits.
"""

from __future__ import annotations

from .quota_postgres_windows import WINDOWS

VERSION = 1
ACT = "act_3"
"""The function that does a batch: names of buckets, ids of reservations and words, each on a line of its own; the answers come
with a character 31 between them."""

TABLES = (
    "CREATE SCHEMA IF NOT EXISTS {schema}",
    "CREATE TABLE IF NOT EXISTS {schema}.version (ledger integer PRIMARY KEY)",
    f"INSERT INTO {{schema}}.version VALUES ({VERSION}) ON CONFLICT DO NOTHING",  # noqa: S608 - a number of this module
    "CREATE TABLE IF NOT EXISTS {schema}.epoch"
    " (one boolean PRIMARY KEY DEFAULT true CHECK (one), id text NOT NULL, created float8 NOT NULL, flag text NOT NULL)",
    'CREATE TABLE IF NOT EXISTS {schema}.bucket (name text COLLATE "C" PRIMARY KEY, version bigint NOT NULL, kind text NOT NULL,'
    " head text NOT NULL, ceiling float8 NOT NULL, lost text NOT NULL, wid float8, ends float8,"
    " used float8 NOT NULL, older float8 NOT NULL, since text NOT NULL, plain boolean NOT NULL,"
    " blocks float8[] NOT NULL, slots jsonb NOT NULL, firm float8, learned text NOT NULL) WITH (fillfactor = 50)",
    "CREATE TABLE IF NOT EXISTS {schema}.reservation"
    ' (id text COLLATE "C" PRIMARY KEY, state text NOT NULL, expires float8 NOT NULL) WITH (fillfactor = 70)',
    "CREATE INDEX IF NOT EXISTS reservation_expires ON {schema}.reservation (expires)",
    'CREATE TABLE IF NOT EXISTS {schema}.note (kind text, name text COLLATE "C", value text NOT NULL, PRIMARY KEY (kind, name))',
)

FUNCTIONS = (
    *WINDOWS,
    """
CREATE OR REPLACE FUNCTION {schema}.raws_1(names text[]) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT string_agg(CASE WHEN b.name IS NULL THEN '' ELSE concat(b.version, E'\\t', b.kind, E'\\t', b.head, E'\\t', b.lost,
    E'\\t', b.wid, E'\\t', b.used, E'\\t', b.older, E'\\t', b.since, E'\\t', CASE WHEN b.plain THEN 1 ELSE 0 END, E'\\t',
    array_to_string(b.blocks, ' '), E'\\t',
    (SELECT string_agg(concat(s.key, ' ', s.value), ' ') FROM jsonb_each_text(b.slots) s), E'\\t', b.learned) END,
    E'\\n' ORDER BY n.place)
  FROM unnest(names) WITH ORDINALITY n(name, place) LEFT JOIN {schema}.bucket b ON b.name = n.name
$$""",
    """
CREATE OR REPLACE FUNCTION {schema}.reserve_2(a text[], clock float8) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  found_state text; b {schema}.bucket; todo {schema}.bucket[] := ARRAY[]::{schema}.bucket[];
  moved boolean[] := ARRAY[]::boolean[];
  fits boolean := true; names text[] := ARRAY[]::text[]; i integer; want float8; amount float8;
BEGIN
  SELECT state INTO found_state FROM {schema}.reservation WHERE id = a[1];
  IF FOUND THEN
    RETURN CASE WHEN found_state = 'o' THEN 'y' ELSE 'd' END;
  END IF;
  FOR i IN 4 .. coalesce(array_length(a, 1), 0) BY 5 LOOP
    names := names || a[i];
    want := a[i + 2]; amount := a[i + 4];
    SELECT * INTO b FROM {schema}.bucket WHERE name = a[i];
    IF NOT FOUND OR b.kind <> a[i + 1] OR b.lost <> '' OR b.since <> '' OR b.wid IS NULL OR b.firm <= a[3]::float8 THEN
      fits := false;
    ELSIF b.wid = want THEN
      moved := moved || false;
    ELSIF b.plain OR a[i + 3] = '' THEN
      b := {schema}.moved_2(b, want, nullif(a[i + 3], '')::float8);
      moved := moved || true;
    ELSE
      fits := false;
    END IF;
    IF b.used IS NULL OR b.used + amount > b.ceiling THEN
      fits := false;
    END IF;
    EXIT WHEN NOT fits;
    b.used := b.used + amount;
    todo := todo || b;
  END LOOP;
  IF NOT fits THEN
    FOR i IN 4 .. array_length(a, 1) BY 5 LOOP
      names[(i + 1) / 5] := a[i];
    END LOOP;
    RETURN E'n\\n' || {schema}.raws_1(names);
  END IF;
  FOR i IN 1 .. coalesce(array_length(todo, 1), 0) LOOP
    b := todo[i];
    IF moved[i] THEN
      UPDATE {schema}.bucket SET version = version + 1, used = b.used, older = b.older, wid = b.wid, ends = b.ends,
        plain = b.plain, blocks = b.blocks, slots = b.slots WHERE name = b.name;
    ELSE
      UPDATE {schema}.bucket SET version = version + 1, used = b.used WHERE name = b.name;
    END IF;
  END LOOP;
  INSERT INTO {schema}.reservation VALUES (a[1], 'o', clock + a[2]::float8 / 1000);
  RETURN 'y';
END $$""",
    """
CREATE OR REPLACE FUNCTION {schema}.settle_2(a text[], undoing boolean, clock float8) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  found_state text; b {schema}.bucket; fits boolean := true; names text[] := ARRAY[]::text[]; i integer;
  todo {schema}.bucket[] := ARRAY[]::{schema}.bucket[]; slot float8; delta float8; held float8;
BEGIN
  SELECT state INTO found_state FROM {schema}.reservation WHERE id = a[1] FOR UPDATE;
  IF NOT FOUND OR found_state <> 'o' THEN
    IF undoing AND found_state IS NULL THEN
      INSERT INTO {schema}.reservation VALUES (a[1], 's ' || a[2], clock + a[3]::float8 / 1000) ON CONFLICT DO NOTHING;
    END IF;
    RETURN CASE WHEN found_state IS NULL THEN 'g' WHEN found_state = 's ' || a[2] THEN 'y' ELSE 'f' END;
  END IF;
  FOR i IN 4 .. coalesce(array_length(a, 1), 0) BY 4 LOOP
    names := names || a[i];
    slot := a[i + 2]; delta := a[i + 3];
    SELECT * INTO b FROM {schema}.bucket WHERE name = a[i];
    CONTINUE WHEN NOT FOUND OR b.wid IS NULL;
    held := (b.slots ->> a[i + 2])::float8;
    IF b.kind <> a[i + 1] THEN
      fits := false;
    ELSIF b.wid = slot AND b.used + delta >= b.older THEN
      b.used := b.used + delta;
      todo := todo || b;
    ELSIF held IS NOT NULL AND b.wid <> slot AND held + delta >= 0 THEN
      b := {schema}.corrected_1(b, a[i + 2], held, held + delta);
      fits := fits AND b.used IS NOT NULL;
      todo := todo || b;
    ELSE
      fits := false;
    END IF;
  END LOOP;
  IF NOT fits THEN
    RETURN E'n\\n' || {schema}.raws_1(names);
  END IF;
  FOR i IN 1 .. coalesce(array_length(todo, 1), 0) LOOP
    b := todo[i];
    UPDATE {schema}.bucket SET version = version + 1, used = b.used, older = b.older, slots = b.slots, plain = b.plain
      WHERE name = b.name;
  END LOOP;
  UPDATE {schema}.reservation SET state = 's ' || a[2], expires = clock + a[3]::float8 / 1000 WHERE id = a[1];
  RETURN 'y';
END $$""",
    """
CREATE OR REPLACE FUNCTION {schema}.write_1(a text[], clock float8) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  found_state text; i integer; names text[] := ARRAY[]::text[]; fits boolean := true; had bigint;
BEGIN
  IF a[1] <> '' THEN
    SELECT state INTO found_state FROM {schema}.reservation WHERE id = a[2] FOR UPDATE;
    IF a[1] = 'o' AND found_state IS NOT NULL THEN
      RETURN CASE WHEN found_state = 'o' THEN 'y' ELSE 'd' END;
    END IF;
    IF a[1] = 's' AND found_state IS DISTINCT FROM 'o' THEN
      RETURN CASE WHEN found_state IS NULL THEN 'g' WHEN found_state = 's ' || a[3] THEN 'y' ELSE 'f' END;
    END IF;
  END IF;
  FOR i IN 5 .. coalesce(array_length(a, 1), 0) BY 16 LOOP
    names := names || a[i];
    SELECT version INTO had FROM {schema}.bucket WHERE name = a[i];
    IF coalesce(had::text, '') <> a[i + 1] THEN
      fits := false;
    ELSIF had IS NULL THEN
      INSERT INTO {schema}.bucket VALUES
        (a[i], 0, '', '', 0, '', NULL, NULL, 0, 0, '', true, ARRAY[]::float8[], jsonb_build_object(), NULL, '')
        ON CONFLICT DO NOTHING;
      fits := fits AND FOUND;
    END IF;
  END LOOP;
  IF NOT fits THEN
    RETURN E'n\\n' || {schema}.raws_1(names);
  END IF;
  FOR i IN 5 .. coalesce(array_length(a, 1), 0) BY 16 LOOP
    UPDATE {schema}.bucket SET version = version + 1, kind = a[i + 2], head = a[i + 3], ceiling = a[i + 4]::float8,
      firm = nullif(a[i + 5], '')::float8, lost = a[i + 6], wid = nullif(a[i + 7], '')::float8,
      ends = nullif(a[i + 8], '')::float8,
      used = a[i + 9]::float8, older = a[i + 10]::float8, since = a[i + 11], plain = a[i + 12] = '1', learned = a[i + 15],
      blocks = coalesce(string_to_array(nullif(a[i + 13], ''), ' ')::float8[], ARRAY[]::float8[]),
      slots = (SELECT coalesce(jsonb_object_agg(w.words[k], w.words[k + 1]::float8), jsonb_build_object())
        FROM (SELECT string_to_array(nullif(a[i + 14], ''), ' ') AS words) w, generate_series(1, array_length(w.words, 1), 2) k)
      WHERE name = a[i];
  END LOOP;
  IF a[1] = 'o' THEN
    INSERT INTO {schema}.reservation VALUES (a[2], 'o', clock + a[4]::float8 / 1000);
  ELSIF a[1] = 's' THEN
    UPDATE {schema}.reservation SET state = 's ' || a[3], expires = clock + a[4]::float8 / 1000 WHERE id = a[2];
  END IF;
  RETURN 'y';
END $$""",
    """
CREATE OR REPLACE FUNCTION {schema}.claim_1(clock float8) RETURNS text LANGUAGE sql AS $$
  SELECT split_part(value, ' ', 1) FROM {schema}.note WHERE kind = 'c' AND split_part(value, ' ', 2)::float8 > clock
$$""",
    """
CREATE OR REPLACE FUNCTION {schema}.act_3(bucket_names text, record_ids text, said text) RETURNS text LANGUAGE plpgsql
  SET lock_timeout = '1500ms' SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  clock float8 := extract(epoch FROM clock_timestamp()); e {schema}.epoch; answers text[]; answer text; now_held text;
  words text[] := string_to_array(said, E'\\n'); names text[] := string_to_array(bucket_names, E'\\n');
  ids text[] := string_to_array(record_ids, E'\\n');
  i integer := 4; o integer; k integer; n integer; p integer; r integer; a text[]; verb text; size integer; places integer[];
  many boolean := array_length(words, 1) > 5 + words[5]::integer;
  stale boolean := true; dirty boolean := false; locked boolean := false; fast boolean; moment float8;
  b_name text[]; b_kind text[]; b_wid float8[]; b_used float8[]; b_older float8[]; b_room float8[]; b_firm float8[];
  claim text; held text; token text; lasting text;
  b_odd boolean[]; b_more integer[]; r_id text[]; r_state text[]; r_expires float8[]; r_way text[];
BEGIN
  SELECT * INTO e FROM {schema}.epoch;
  IF NOT FOUND THEN
    IF words[1] <> '' THEN
      RETURN 'lost';
    END IF;
    INSERT INTO {schema}.epoch VALUES (true, words[2], clock, words[3]) ON CONFLICT DO NOTHING;
    SELECT * INTO e FROM {schema}.epoch;
  ELSIF words[1] <> '' AND words[1] <> e.id THEN
    RETURN 'other';
  END IF;
  answers := ARRAY[concat('ok ', clock, ' ', e.id, ' ', e.created, ' ', e.flag)];
  LOOP
    verb := words[i]; size := words[i + 1]; o := i + 1; fast := false;
    IF many AND (verb = 'R' OR verb = 'S') AND claim IS NULL THEN
      IF stale THEN
        SELECT array_agg(name), array_agg(kind), array_agg(wid), array_agg(used), array_agg(older), array_agg(ceiling),
          array_agg(firm), array_agg(lost <> '' OR since <> ''), array_agg(0)
          INTO b_name, b_kind, b_wid, b_used, b_older, b_room, b_firm, b_odd, b_more
          FROM (SELECT * FROM {schema}.bucket WHERE name = ANY(names) ORDER BY name FOR NO KEY UPDATE) known;
        SELECT array_agg(id), array_agg(state), array_agg(expires), array_agg(''::text) INTO r_id, r_state, r_expires, r_way
          FROM (SELECT * FROM {schema}.reservation WHERE id = ANY(ids) ORDER BY id FOR UPDATE) known;
        stale := false;
        locked := true;
        claim := {schema}.claim_1(clock);
      END IF;
      r := array_position(r_id, words[o + 1]);
      n := 0;
      fast := claim IS NULL;
      IF NOT fast THEN
        NULL;
      ELSIF verb = 'R' AND r IS NULL THEN
        moment := words[o + 3];
        FOR k IN o + 4 .. o + size BY 5 LOOP
          p := array_position(b_name, words[k]);
          IF p IS NULL OR b_wid[p] IS NULL OR b_kind[p] <> words[k + 1] OR b_odd[p] OR b_firm[p] <= moment
            OR b_wid[p] <> words[k + 2]::float8 OR b_used[p] + words[k + 4]::float8 > b_room[p] THEN
            fast := false;
            EXIT;
          END IF;
          n := n + 1;
          places[n] := p;
        END LOOP;
        IF fast THEN
          FOR k IN 1 .. n LOOP
            p := places[k];
            b_used[p] := b_used[p] + words[o + 3 + 5 * k]::float8;
            b_more[p] := b_more[p] + 1;
          END LOOP;
          r_id := r_id || words[o + 1];
          r_state := r_state || 'o'::text;
          r_expires := r_expires || (clock + words[o + 2]::float8 / 1000);
          r_way := r_way || 'new'::text;
        END IF;
      ELSIF verb = 'S' AND r_state[r] = 'o' THEN
        FOR k IN o + 4 .. o + size BY 4 LOOP
          p := array_position(b_name, words[k]);
          IF p IS NULL OR b_wid[p] IS NULL OR b_kind[p] <> words[k + 1] OR b_wid[p] <> words[k + 2]::float8
            OR b_used[p] + words[k + 3]::float8 < b_older[p] THEN
            fast := false;
            EXIT;
          END IF;
          n := n + 1;
          places[n] := p;
        END LOOP;
        IF fast THEN
          FOR k IN 1 .. n LOOP
            p := places[k];
            b_used[p] := b_used[p] + words[o + 3 + 4 * k]::float8;
            b_more[p] := b_more[p] + 1;
          END LOOP;
          r_state[r] := 's ' || words[o + 2];
          r_expires[r] := clock + words[o + 3]::float8 / 1000;
          IF r_way[r] = '' THEN
            r_way[r] := 'old';
          END IF;
        END IF;
      ELSE
        fast := false;
      END IF;
    END IF;
    IF fast THEN
      answer := 'y';
      dirty := true;
    ELSE
      IF dirty THEN
        UPDATE {schema}.bucket b SET version = b.version + c.more, used = c.used
          FROM unnest(b_name, b_used, b_more) AS c(name, used, more) WHERE b.name = c.name AND c.more > 0;
        IF 'new' = ANY(r_way) THEN
          INSERT INTO {schema}.reservation
            SELECT c.id, c.state, c.expires FROM unnest(r_id, r_state, r_expires, r_way) AS c(id, state, expires, way)
            WHERE c.way = 'new';
        END IF;
        IF 'old' = ANY(r_way) THEN
          UPDATE {schema}.reservation r SET state = c.state, expires = c.expires
            FROM unnest(r_id, r_state, r_expires, r_way) AS c(id, state, expires, way) WHERE r.id = c.id AND c.way = 'old';
        END IF;
        dirty := false;
      END IF;
      EXIT WHEN verb IS NULL;
      IF NOT locked THEN
        PERFORM 1 FROM {schema}.bucket WHERE name = ANY(names) ORDER BY name FOR NO KEY UPDATE;
        locked := true;
        claim := {schema}.claim_1(clock);
      END IF;
      stale := true;
      a := words[i + 2 : i + 1 + size];
      token := NULL;
      IF verb = 'C' AND (claim IS NULL OR claim = a[1]) THEN
        token := a[1]; lasting := a[2]; verb := a[3]; held := claim; claim := NULL;
        a := words[i + 5 : i + 1 + size];
      END IF;
      IF verb = 'C' OR (claim IS NOT NULL AND verb IN ('R', 'S', 'W', 'A') AND a[3] <> 'undo') THEN
        answer := 'w';
      ELSIF verb = 'R' THEN
        answer := {schema}.reserve_2(a, clock);
      ELSIF verb = 'S' OR verb = 'U' THEN
        answer := {schema}.settle_2(a, verb = 'U', clock);
      ELSIF verb = 'L' THEN
        answer := {schema}.raws_1(a);
      ELSIF verb = 'W' THEN
        answer := {schema}.write_1(a, clock);
      ELSIF verb = 'A' THEN
        UPDATE {schema}.bucket SET version = version + 1, head = a[3], ceiling = a[4]::float8 WHERE name = a[1] AND head = a[2];
        answer := CASE WHEN FOUND THEN 'y' ELSE E'n\\n' || coalesce({schema}.raws_1(a[1:1]), '') END;
      ELSIF verb = 'V' THEN
        SELECT coalesce(string_agg(value, E'\\n'), '') INTO answer FROM {schema}.note WHERE kind = a[1];
      ELSE
        SELECT value INTO now_held FROM {schema}.note WHERE kind = a[1] AND name = a[2] FOR UPDATE;
        IF coalesce(now_held, '') <> a[3] THEN
          answer := E'n\\n' || coalesce(now_held, '');
        ELSE
          IF a[4] = '' THEN
            DELETE FROM {schema}.note WHERE kind = a[1] AND name = a[2];
          ELSE
            INSERT INTO {schema}.note VALUES (a[1], a[2], a[4]) ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value;
          END IF;
          answer := 'y';
        END IF;
      END IF;
      IF token IS NOT NULL AND (verb = 'L' OR left(answer, 1) = 'n') THEN
        claim := token;
        INSERT INTO {schema}.note VALUES ('c', '', concat(token, ' ', clock + lasting::float8 / 1000))
          ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value;
      ELSIF token IS NOT NULL AND held IS NOT NULL THEN
        DELETE FROM {schema}.note WHERE kind = 'c';
      END IF;
    END IF;
    answers := answers || answer;
    i := i + 2 + size;
  END LOOP;
  IF random() < 0.01 THEN
    DELETE FROM {schema}.reservation WHERE id IN
      (SELECT id FROM {schema}.reservation WHERE expires < clock ORDER BY expires LIMIT 500 FOR UPDATE SKIP LOCKED);
  END IF;
  RETURN array_to_string(answers, chr(31), '');
END $$""",
)
