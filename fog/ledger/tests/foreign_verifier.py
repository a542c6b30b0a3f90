#!/usr/bin/env python3
"""Checks what a Haar ledger hands out, with none of Haar's code.

    foreign_verifier.py --policy POLICY [--entry ENTRY] proof FILE...
    foreign_verifier.py --policy POLICY tiles FOLDER

POLICY is a C2SP tlog-policy. `proof` checks C2SP tlog-proof files: the leaf is the bytes of ENTRY (consortium log), or
what the opening in the `extra` line gives (site log). `tiles` checks a folder of C2SP tlog-tiles: entry bundles give
leaf hashes, these every tile and the root, and that must be the root that was signed. Says `ok` or `refused` for each
and exits with 0 if all were ok, 1 if one was refused, 2 if it was called wrongly.

Needs Python 3.9 and the package `cryptography` (Debian: python3-cryptography), for Ed25519 only. It was written from
the specifications (c2sp.org, RFC 6962, RFC 2104) and fog/ledger/README.md, to be read in one sitting.
"""

import argparse
import base64
import hashlib
import hmac
import json
import pathlib
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

KINDS = {
    "window-digest": 1,
    "flagged-event": 2,
    "correction": 3,
    "alarm-transition": 4,
    "model-statement": 5,
    "patient-parameters": 6,
    "consent-grant": 7,
    "consent-revocation": 8,
    "access-decision": 9,
    "custody": 10,
    "erasure": 11,
    "evidence": 12,
    "edge-key": 13,
}
LOG, COSIGNER = 1, 4
TILE = 256
MAX_FILE_BYTES = 64 << 20


class Refused(Exception):
    """Why something does not hold."""


def require(holds, why):
    if not holds:
        raise Refused(why)


def unbase64(text):
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Refused("not base64") from error
    require(base64.b64encode(data).decode() == text, "base64 is not canonical")
    return data


def decimal(text):
    require(text.isascii() and text.isdigit() and str(int(text)) == text, "not a decimal number")
    return int(text)


# RFC 6962, section 2.1


def leaf_hash(data):
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def root_of(hashes):
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    return node_hash(root_of(hashes[:split]), root_of(hashes[split:]))


def root_by_path(leaf, index, size, path):
    """Section 2.1.1 as RFC 9162, section 2.1.3.2 spells it out."""
    require(index < size, "the index is beyond the tree")
    fn, sn, node = index, size - 1, leaf
    for sibling in path:
        require(sn != 0, "the inclusion proof is too long")
        if fn & 1 or fn == sn:
            node = node_hash(sibling, node)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = node_hash(node, sibling)
        fn, sn = fn >> 1, sn >> 1
    require(sn == 0, "the inclusion proof is too short")
    return node


# C2SP signed-note, tlog-checkpoint, tlog-cosignature


class Key:
    """A verifier key of one of the two types."""

    def __init__(self, text, kind):
        parts = text.split("+", 2)
        require(len(parts) == 3, "a verifier key is malformed")
        self.text, self.name, self.kind = text, parts[0], kind
        typed = unbase64(parts[2])
        require(self.name and len(typed) == 33 and typed[0] == kind, "a verifier key is of another type")
        self.id = hashlib.sha256(self.name.encode() + b"\n" + typed).digest()[:4]
        require(self.id.hex() == parts[1], "a verifier key does not fit its id")
        self.public = typed[1:]

    def holds(self, text, signature):
        if self.kind == COSIGNER:
            time, signature = int.from_bytes(signature[:8], "big"), signature[8:]
            text = f"cosignature/v1\ntime {time}\n".encode() + text
            require(time < 1 << 63, f"the time of {self.name}'s cosignature is impossible")
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError) as error:
            raise Refused(f"the signature of {self.name} does not fit") from error


def parse_note(note):
    """Text, and signatures as name, id, bytes."""
    require(not any(byte < 32 and byte != 10 for byte in note), "control characters in a note")
    try:
        note.decode()
    except UnicodeDecodeError as error:
        raise Refused("a note is not UTF-8") from error
    cut = note.rfind(b"\n\n")
    require(cut >= 0 and note.endswith(b"\n"), "not a signed note")
    signatures = []
    for line in note[cut + 2 : -1].decode().split("\n"):
        parts = line.split(" ")
        require(len(parts) == 3 and parts[0] == "—" and parts[1], "a signature line is malformed")
        data = unbase64(parts[2])
        require(len(data) > 4, "a signature is too short")
        signatures.append((parts[1], data[:4], data[4:]))
    return note[: cut + 1], signatures


def signed_by(key, text, signatures):
    own = [data for name, key_id, data in signatures if (name, key_id) == (key.name, key.id)]
    for data in own:
        key.holds(text, data)
    return bool(own)


# C2SP tlog-policy


class Policy:
    def __init__(self, data):
        self.logs, self.witnesses, self.groups, self.quorum = [], {}, {}, None
        listed = set()
        for number, line in enumerate(data.decode().split("\n"), 1):
            words = line.replace("\t", " ").split(" ")
            words = [word for word in words if word]
            if words and not words[0].startswith("#"):
                try:
                    self.line(words, listed)
                except (Refused, ValueError, IndexError) as error:
                    raise Refused(f"line {number} of the policy: {error}") from error
        require(self.quorum is not None, "the policy has no quorum")

    def line(self, words, listed):
        if words[0] == "log" and len(words) in (2, 3):
            key = Key(words[1], LOG)
            require(all(key.public != other.public for other in self.logs), "a log is there twice")
            self.logs.append(key)
        elif words[0] == "witness" and len(words) in (3, 4):
            key = Key(words[2], COSIGNER)
            others = self.witnesses.values()
            require(all(key.public != other.public for other in others), "a witness is there twice")
            self.name(words[1])
            self.witnesses[words[1]] = key
        elif words[0] == "group" and len(words) > 3:
            members = words[3:]
            threshold = {"all": len(members), "any": 1}.get(words[2]) or decimal(words[2])
            require(1 <= threshold <= len(members), "a threshold cannot be met")
            for member in members:
                require(member in self.witnesses or member in self.groups, "a member is not defined")
                require(member not in listed, "a member is listed twice")
                listed.add(member)
            self.name(words[1])
            self.groups[words[1]] = (threshold, members)
        elif words[0] == "quorum" and len(words) == 2 and self.quorum is None:
            known = words[1] == "none" or words[1] in self.witnesses or words[1] in self.groups
            require(known, "the quorum is not defined")
            self.quorum = words[1]
        else:
            raise Refused("means nothing here")

    def name(self, name):
        known = name == "none" or name in self.witnesses or name in self.groups
        require(not known, "a name is there twice")

    def met(self, name, cosigned):
        if name == "none" or name in cosigned:
            return True
        if name in self.witnesses:
            return False
        threshold, members = self.groups[name]
        return sum(self.met(member, cosigned) for member in members) >= threshold

    def check(self, note):
        """Size and root of a checkpoint, and the log's key, once log and quorum have signed it."""
        text, signatures = parse_note(note)
        lines = text.decode().split("\n")
        require(len(lines) >= 4, "the checkpoint is malformed")
        origin, size, root = lines[0], decimal(lines[1]), unbase64(lines[2])
        require(len(root) == 32, "the checkpoint's root is malformed")
        own = [key for key in self.logs if key.name == origin and signed_by(key, text, signatures)]
        require(own, f"no log of the policy signed this checkpoint of {origin}")
        cosigned = {
            name for name, key in self.witnesses.items() if signed_by(key, text, signatures)
        }
        require(self.met(self.quorum, cosigned), f"no quorum: cosigned by {sorted(cosigned)}")
        return size, root, own[0]


# C2SP tlog-proof, and the opening of a site log's leaf


def leaf_of(opening, log):
    try:
        pairs = json.loads(opening.decode(), object_pairs_hook=list)
    except (ValueError, UnicodeDecodeError) as error:
        raise Refused("the opening is no JSON") from error
    fields = ["v", "kind", "name", "key", "body", "log"]
    require(isinstance(pairs, list) and [pair[0] for pair in pairs] == fields, "other fields in the opening")
    value = dict(pairs)
    require(type(value["v"]) is int and value["v"] == 1, "another version of opening")
    require(all(type(value[field]) is str for field in fields[1:]), "the opening's fields are no texts")
    compact = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    require(compact.encode() == opening, "the opening is not in its one form")
    require(value["log"] == log.text, "the opening names another log")
    require(value["kind"] in KINDS, "a kind of leaf that is not known")
    kind = bytes([KINDS[value["kind"]]])
    name, key, body = bytes.fromhex(value["name"]), unbase64(value["key"]), unbase64(value["body"])
    require(name.hex() == value["name"] and len(name) == len(key) == 32, "name or key has another length")
    return b"\1" + kind + hmac.digest(key, b"haar-leaf-v1" + kind + name + body, "sha256")


def check_proof(data, policy, entry):
    head, cut, note = data.partition(b"\n\n")
    require(cut, "no checkpoint in the proof")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise Refused("not a proof file") from error
    require(lines.pop(0) == "c2sp.org/tlog-proof@v1", "not a proof file")
    extra = unbase64(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else None
    require(lines and lines[0].startswith("index "), "the proof has no index")
    index = decimal(lines.pop(0)[6:])
    path = [unbase64(line) for line in lines]
    require(len(path) <= 64 and all(len(node) == 32 for node in path), "the inclusion proof is malformed")
    size, root, log = policy.check(note)
    if entry is not None:
        require(extra is None, "an entry's proof has no opening")
        leaf = entry
    else:
        require(extra is not None, "the proof has no opening: name the entry")
        leaf = leaf_of(extra, log)
    require(root_by_path(leaf_hash(leaf), index, size, path) == root, "the leaf is not in the signed tree")
    return f"leaf {index} of {size}"


# C2SP tlog-tiles


def tile_path(kind, index, width):
    digits = f"{index:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    name = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
    return f"tile/{kind}/{name}" + ("" if width == TILE else f".p/{width}")


def entries_of(bundle, width):
    entries, at = [], 0
    while at < len(bundle):
        length = int.from_bytes(bundle[at : at + 2], "big")
        require(at + 2 + length <= len(bundle), "an entry bundle ends within an entry")
        entries.append(bundle[at + 2 : at + 2 + length])
        at += 2 + length
    require(len(entries) == width, "an entry bundle has another number of entries")
    return entries


def check_tiles(folder, policy):
    size, root, _ = policy.check(read(folder / "checkpoint"))
    widths = [TILE] * (size // TILE) + ([size % TILE] if size % TILE else [])
    hashes = []
    for index, width in enumerate(widths):
        path = tile_path("entries", index, width)
        hashes += [leaf_hash(entry) for entry in entries_of(read(folder / path), width)]
    require(root_of(hashes) == root, "the entries do not hash to the signed root")
    level, tiles = 0, 0
    while hashes:
        for index in range(-(-len(hashes) // TILE)):
            row = hashes[index * TILE : (index + 1) * TILE]
            path = tile_path(level, index, len(row))
            require(read(folder / path) == b"".join(row), f"{path} is not what the entries give")
            tiles += 1
        hashes = [
            root_of(hashes[at : at + TILE]) for at in range(0, len(hashes) // TILE * TILE, TILE)
        ]
        level += 1
    return f"{size} entries, {tiles} tiles"


def read(path):
    try:
        require(path.stat().st_size <= MAX_FILE_BYTES, f"{path} is too long")
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from error


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--policy", required=True, type=pathlib.Path)
    arguments.add_argument("--entry", type=pathlib.Path)
    arguments.add_argument("what", choices=["proof", "tiles"])
    arguments.add_argument("paths", nargs="+", type=pathlib.Path)
    given = arguments.parse_args()
    status = 0
    for path in given.paths:
        try:
            policy = Policy(read(given.policy))
            if given.what == "tiles":
                print(f"ok {path}: {check_tiles(path, policy)}")
            else:
                entry = read(given.entry) if given.entry else None
                print(f"ok {path}: {check_proof(read(path), policy, entry)}")
        except (Refused, ValueError) as error:
            print(f"refused {path}: {error}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
