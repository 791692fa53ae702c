-- What is told of recordings and of the results of jobs. Columns are named as in the documents
-- that lie beside the objects.

CREATE TABLE cefmp4.recordings (
    subject text PRIMARY KEY,
    path text,
    bucket text NOT NULL,
    key text NOT NULL,
    size bigint NOT NULL CHECK (size >= 0),
    etag text,
    sha256 text,
    duration_seconds double precision,
    meta jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
-- A path may be longer than an entry of the usual kind of index.
CREATE INDEX recordings_path ON cefmp4.recordings USING hash (path);
CREATE INDEX recordings_key ON cefmp4.recordings (bucket, key);

-- One row of each job: that of the attempt which was accepted. `accepted_at` orders late writers.
CREATE TABLE cefmp4.results (
    job_id text PRIMARY KEY,
    kind text NOT NULL,
    subject text NOT NULL,
    attempt text NOT NULL,
    accepted_at timestamptz NOT NULL,
    document jsonb NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX results_subject ON cefmp4.results (subject, kind);

CREATE TABLE cefmp4.hls_playlists (
    subject text NOT NULL,
    name text NOT NULL,
    job_id text NOT NULL REFERENCES cefmp4.results ON DELETE CASCADE,
    attempt text NOT NULL,
    position integer NOT NULL,
    role text NOT NULL, -- master, video, audio
    bucket text NOT NULL,
    key text NOT NULL,
    bandwidth bigint,
    codecs text,
    encoder text,
    width integer,
    height integer,
    fps double precision,
    hdr text,
    language text,
    duration_seconds double precision,
    bytes bigint,
    PRIMARY KEY (subject, name)
);
CREATE INDEX hls_playlists_job ON cefmp4.hls_playlists (job_id);

CREATE TABLE cefmp4.hls_segments (
    subject text NOT NULL,
    playlist text NOT NULL,
    index integer NOT NULL,
    bucket text NOT NULL,
    key text NOT NULL,
    bytes bigint NOT NULL,
    start_seconds double precision NOT NULL,
    duration_seconds double precision NOT NULL,
    width integer,
    height integer,
    fps double precision,
    codec text,
    PRIMARY KEY (subject, playlist, index),
    FOREIGN KEY (subject, playlist) REFERENCES cefmp4.hls_playlists (subject, name)
        ON DELETE CASCADE
);
