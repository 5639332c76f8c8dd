"""Who may do what on /v2/: challenges, credentials of every kind, and what nobody gets to know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from api.access import keys, users
from api.access.principal import Action
from api.access.settings import AccessSettings
from api.config import HttpSettings
from tests.wire.harness import read_all
from tests.wire.v2.members import ANN, BOB, Members, basic, challenge, limited, members, read_raw
from tests.wire.v2.pushing import code

ZEROS = "sha256:" + "0" * 64
CATALOGUE = "registry:catalog:*"
EVERY_ROUTE = [
    ("GET", "/v2/", None),
    ("GET", "/v2", None),
    ("GET", "/v2/_catalog", CATALOGUE),
    ("GET", f"/v2/a/b/blobs/{ZEROS}", "repository:a/b:pull"),
    ("HEAD", f"/v2/a/b/blobs/{ZEROS}", "repository:a/b:pull"),
    ("DELETE", f"/v2/a/b/blobs/{ZEROS}", "repository:a/b:delete"),
    ("GET", "/v2/box/manifests/latest", "repository:box:pull"),
    ("HEAD", "/v2/box/manifests/latest", "repository:box:pull"),
    ("PUT", "/v2/a/b/manifests/latest", "repository:a/b:pull,push"),
    ("DELETE", "/v2/a/b/manifests/latest", "repository:a/b:delete"),
    ("GET", "/v2/a/b/tags/list", "repository:a/b:pull"),
    ("GET", f"/v2/a/b/referrers/{ZEROS}", "repository:a/b:pull"),
    ("POST", "/v2/a/b/blobs/uploads/", "repository:a/b:pull,push"),
    ("POST", f"/v2/a/b/blobs/uploads/?mount={ZEROS}&from=c%2Fd", "repository:a/b:pull,push repository:c/d:pull"),
    ("POST", f"/v2/a/b/blobs/uploads/?mount={ZEROS}&from=c/d", "repository:a/b:pull,push repository:c/d:pull"),
    ("POST", f'/v2/a/b/blobs/uploads/?mount={ZEROS}&from=c",realm="x', "repository:a/b:pull,push"),
    ("PATCH", "/v2/a/b/blobs/uploads/x", "repository:a/b:pull,push"),
    ("PUT", "/v2/a/b/blobs/uploads/x", "repository:a/b:pull,push"),
    ("GET", "/v2/a/b/blobs/uploads/x", "repository:a/b:pull,push"),
    ("DELETE", "/v2/a/b/blobs/uploads/x", "repository:a/b:pull,push"),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    """One registry for the tests of a module, each of which uses repositories of its own."""
    with members(tmp_path_factory.mktemp("auth") / "root") as registry:
        yield registry


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Members]:
    """A registry whose accounts, clock or keys a test changes."""
    with members(tmp_path / "root") as registry:
        yield registry


def assert_challenged(registry: Members, answer: httpx2.Response, scope: str | None, error: str | None = None) -> None:
    """The answer says where to get a token and for what, and nothing more."""
    assert answer.status_code == 401
    expected = {"scheme": "Bearer", "realm": f"{registry.url}/v2/token", "service": "cas"}
    expected |= {} if scope is None else {"scope": scope}
    assert challenge(answer) == expected | ({} if error is None else {"error": error})
    if answer.request.method != "HEAD":
        assert code(answer) == "UNAUTHORIZED"


def told(answer: httpx2.Response) -> dict[str, str]:
    """The headers, but for the time of day."""
    return {name: value for name, value in answer.headers.items() if name != "date"}


class TestChallenges:
    """What somebody is told who did not say who they are."""

    @pytest.mark.parametrize(("method", "path", "scope"), EVERY_ROUTE)
    def test_a_challenge_names_the_service_and_the_scope(
        self, registry: Members, method: str, path: str, scope: str | None
    ) -> None:
        """One line, an absolute address with the host of the request, the scope of the protocol's table."""
        assert_challenged(registry, registry.ask(method, path), scope)

    @pytest.mark.parametrize("path", ["/v2/", "/v2/box/manifests/latest"])
    def test_head_is_challenged_without_a_body(self, registry: Members, path: str) -> None:
        """The same headers as for GET, and not a byte behind them."""
        head, get = (registry.ask(method, path) for method in ("HEAD", "GET"))
        assert head.status_code == get.status_code == 401
        assert head.headers["content-length"] == get.headers["content-length"]
        assert challenge(head) == challenge(get)
        assert head.content == b""

    def test_the_address_is_the_one_that_the_client_used(self, registry: Members) -> None:
        """Whatever name a client reaches the server by, it reaches the token service by it too."""
        answer = registry.ask("GET", "/v2/", headers={"Host": "registry.example:5000"})
        assert challenge(answer)["realm"] == "http://registry.example:5000/v2/token"

    @pytest.mark.parametrize("http2", [False, True])
    def test_a_token_works_over_either_protocol(self, registry: Members, http2: bool) -> None:
        """The challenge names the host, the service answers it, and its token opens the door."""
        client = registry.pushed.client(http2=http2)
        answer = client.ask("GET", "/v2/")
        assert_challenged(registry, answer, None)
        token = client.ask("GET", "/v2/token", Authorization=basic(ANN)).json()["token"]
        assert client.ask("GET", "/v2/", Authorization=f"Bearer {token}").status_code == 200
        client.close()

    @pytest.mark.parametrize("host", ['x",scope="y', "a/b", "a b", "ä"])
    def test_a_host_cannot_write_into_the_challenge(self, registry: Members, host: str) -> None:
        """A Host that is none is not repeated."""
        raw = registry.raw(f"GET /v2/ HTTP/1.1\nHost: {host}\nConnection: close\n\n")
        assert raw.status in {400, 401}
        assert host not in raw.headers.get("www-authenticate", "")

    def test_the_address_is_the_public_one_where_that_is_known(self, tmp_path: Path) -> None:
        """Behind a proxy only the operator knows scheme and host."""
        with members(tmp_path / "root", http=HttpSettings(public_url="https://registry.example")) as registry:
            assert challenge(registry.ask("GET", "/v2/"))["realm"] == "https://registry.example/v2/token"

    def test_a_refused_body_is_never_asked_for(self, registry: Members) -> None:
        """Who waits for leave to send gets the refusal instead of the leave."""
        sock = registry.pushed.server.connect()
        sock.sendall(
            b"PUT /v2/a/b/manifests/latest HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        data = read_all(sock)
        assert read_raw(data).status == 401
        assert b"100 Continue" not in data

    def test_a_wrong_name_is_wrong_before_anybody_is_asked(self, registry: Members) -> None:
        """The grammar is no secret."""
        answer = registry.ask("GET", "/v2/A/tags/list")
        assert (answer.status_code, code(answer)) == (400, "NAME_INVALID")


class TestCredentials:
    """What is accepted, and what is not."""

    def test_the_ping_wants_good_credentials_of_any_kind(self, registry: Members) -> None:
        """A password, a token of somebody, a token of nobody; but not nothing, in either spelling."""
        for who in (basic(ANN), registry.token(who=ANN), registry.token(), registry.token("repository:x:pull")):
            answer = registry.ask("GET", "/v2/", who)
            assert (answer.status_code, answer.content) == (200, b"{}")
            assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
            assert "www-authenticate" not in answer.headers
        for nobody in (None, "Basic Og==", "basic Og=="):
            assert_challenged(registry, registry.ask("GET", "/v2/", nobody), None)

    @pytest.mark.parametrize(
        "who", ["ann:wrong", "nobody.here:ann's secret", "ann:", ":ann's secret", "ann:" + "x" * 9000]
    )
    def test_a_wrong_password_is_challenged_anew(self, registry: Members, who: str) -> None:
        """Unknown users and wrong passwords look the same."""
        assert_challenged(registry, registry.ask("GET", "/v2/ann/box/tags/list", basic(who)), "repository:ann/box:pull")

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "Basic",
            "Basic !!!",
            "Basic YW5u",
            "Digest x",
            "ann",
            "Token signature=x",
            "Basic " + "Q" * 9000,
        ],
    )
    def test_a_malformed_header_is_challenged(self, registry: Members, header: str) -> None:
        """Whatever stands in the header, it is no credentials and no mistake of ours."""
        assert_challenged(registry, registry.ask("GET", "/v2/", header), None)

    @pytest.mark.parametrize("token", ["x", "x y", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "." * 100, "x" * 50_000])
    def test_a_token_of_nobody_we_know_is_invalid(self, registry: Members, token: str) -> None:
        """The client is told to drop it and get another one."""
        answer = registry.ask("GET", "/v2/", f"Bearer {token}")
        assert_challenged(registry, answer, None, "invalid_token")

    def test_two_headers_are_no_credentials(self, registry: Members) -> None:
        """What a proxy read in one of them must not be decided by the other."""
        both = f"Authorization: {basic(ANN)}\nAuthorization: {basic(BOB)}"
        assert registry.raw(f"GET /v2/ HTTP/1.1\nHost: x\n{both}\nConnection: close\n\n").status == 401

    @pytest.mark.parametrize("header", ["", " ", "Basic ", "Bearer", "Bearer ", "\t", "Bearer \u00e4", "Basic \u00e4"])
    def test_what_no_library_sends_is_refused_as_well(self, registry: Members, header: str) -> None:
        """Nothing behind the scheme, blanks, and letters that no credentials have."""
        raw = registry.raw(f"GET /v2/ HTTP/1.1\nHost: x\nAuthorization: {header}\nConnection: close\n\n")
        assert raw.status == 401
        assert raw.json()["errors"][0]["code"] == "UNAUTHORIZED"

    def test_a_password_is_accepted_on_every_route(self, registry: Members) -> None:
        """Health checks and scripts need no token."""
        manifest, blob = registry.push("ann/basic", ANN)
        for path in (
            "tags/list",
            "manifests/latest",
            f"manifests/{manifest}",
            f"blobs/{blob}",
            f"referrers/{manifest}",
        ):
            assert registry.ask("GET", f"/v2/ann/basic/{path}", basic(ANN)).status_code == 200

    def test_a_scheme_is_known_in_any_case(self, registry: Members) -> None:
        """The names of schemes have no case."""
        token = registry.token().partition(" ")[2]
        for scheme in ("bearer", "BEARER", "Bearer "):
            assert registry.ask("GET", "/v2/", f"{scheme} {token}").status_code == 200

    def test_failures_are_slowed_down_and_the_right_password_is_not(self, tmp_path: Path) -> None:
        """Some are let through as 401; then 429 says when to come again, and the owner still gets in."""
        with members(tmp_path / "root", limited(user_failures=2)) as registry:
            for path in ("/v2/", "/v2/token"):
                seen = {registry.ask("GET", path, basic("ann:wrong")).status_code for _ in range(4)}
                assert 429 in seen
                assert seen <= {401, 429}
                answer = registry.ask("GET", path, basic("ann:wrong"))
                assert (answer.status_code, code(answer)) == (429, "TOOMANYREQUESTS")
                assert 0 < int(answer.headers["retry-after"]) <= 60
                assert registry.ask("GET", path, basic(ANN)).status_code == 200
            form = {"grant_type": "password", "username": "ann", "password": "wrong"}
            assert registry.ask("POST", "/v2/token", data=form).status_code == 429

    def test_nobody_has_to_say_anything_in_open_mode(self, tmp_path: Path) -> None:
        """No challenge, headers are not even read, and there is no token service to be sent to."""
        with members(tmp_path / "root", AccessSettings()) as registry:
            registry.push("ann/open", BOB)
            for header in (None, "nonsense", "Bearer x", basic("ann:wrong")):
                assert registry.ask("GET", "/v2/", header).status_code == 200
                assert registry.ask("GET", "/v2/ann/open/tags/list", header).status_code == 200
            for method in ("GET", "POST"):
                assert registry.ask(method, "/v2/token").status_code == 404


class TestTokens:
    """How long a token holds, and what for."""

    PATH, SCOPE = "/v2/ann/box/tags/list", "repository:ann/box:pull"

    def test_a_token_is_good_for_what_it_says(self, fresh: Members) -> None:
        """Its owner may do more; whoever has the token must get another one for that, and is told so."""
        manifest, blob = fresh.push("ann/box", ANN)
        pull = fresh.token(self.SCOPE, who=ANN)
        assert fresh.ask("GET", self.PATH, pull).status_code == 200
        for method, path, scope in [
            ("POST", "/v2/ann/box/blobs/uploads/", "repository:ann/box:pull,push"),
            ("DELETE", f"/v2/ann/box/blobs/{blob}", "repository:ann/box:delete"),
            ("GET", "/v2/ann/other/tags/list", "repository:ann/other:pull"),
            ("GET", "/v2/_catalog", CATALOGUE),
        ]:
            assert_challenged(fresh, fresh.ask(method, path, pull), scope, "insufficient_scope")
        every = fresh.token("repository:ann/box:*", who=ANN)
        assert fresh.ask("DELETE", f"/v2/ann/box/manifests/{manifest}", every).status_code == 202

    def test_a_token_ends_with_its_time(self, fresh: Members) -> None:
        """After that it is invalid, which makes a client fetch another one."""
        fresh.push("ann/box", ANN)
        token = fresh.token(self.SCOPE, who=ANN)
        fresh.clock.now += 600 + 60
        assert fresh.ask("GET", self.PATH, token).status_code == 200
        fresh.clock.now += 1
        assert_challenged(fresh, fresh.ask("GET", self.PATH, token), self.SCOPE, "invalid_token")

    def test_an_upload_outlives_its_token(self, fresh: Members) -> None:
        """A token is looked at when a request begins; a long one is not cut in the middle."""
        token = fresh.token("repository:ann/box:pull,push", who=ANN)
        place = fresh.ask("POST", "/v2/ann/box/blobs/uploads/", token).headers["location"]
        head = f"PATCH {place} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nExpect: 100-continue\r\n"
        with fresh.pushed.server.connect() as sock, sock.makefile("rb") as answers:
            sock.sendall(f"{head}Connection: close\r\nContent-Length: 4\r\n\r\n".encode())
            assert answers.readline().startswith(b"HTTP/1.1 100")  # it was admitted: its body is wanted
            assert list(iter(answers.readline, b"\r\n"))
            fresh.clock.now += 24 * 3600
            sock.sendall(b"blob")
            assert read_raw(answers.read()).status == 202
        assert fresh.ask("GET", place, token).status_code == 401

    def test_a_revoked_right_is_gone_at_once(self, fresh: Members) -> None:
        """A token is an upper bound; what its owner may do is looked up anew."""
        fresh.push("ann/box", ANN)
        fresh.grant("bob", "ann/box", Action.PULL)
        token = fresh.token(self.SCOPE, who=BOB)
        assert fresh.ask("GET", self.PATH, token).status_code == 200
        fresh.grant("bob", "ann/box")
        for who in (token, basic(BOB)):
            answer = fresh.ask("GET", self.PATH, who)
            assert (answer.status_code, code(answer)) == (403, "DENIED")

    def test_a_token_ends_with_the_password_and_with_the_account(self, fresh: Members) -> None:
        """Also if somebody else gets the name a moment later."""
        ann, bob = (fresh.token(who=who) for who in (ANN, BOB))
        fresh.accounts.change("ann", password="another")
        fresh.pushed.store.change(lambda names: users.remove(names, "bob"))
        fresh.accounts.add("bob", "somebody else")
        for token in (ann, bob):
            assert_challenged(fresh, fresh.ask("GET", "/v2/", token), None, "invalid_token")

    def test_a_rotation_of_keys_is_seen_at_once(self, fresh: Members) -> None:
        """The old key verifies as long as it is on the ring."""
        token = fresh.token(who=ANN)
        fresh.pushed.store.change(lambda names: keys.rotate(names, fresh.clock(), keep=1))
        assert fresh.ask("GET", "/v2/", token).status_code == 200
        fresh.pushed.store.change(lambda names: keys.rotate(names, fresh.clock(), keep=0))
        assert_challenged(fresh, fresh.ask("GET", "/v2/", token), None, "invalid_token")


class TestVisibility:
    """What outsiders get to know."""

    def test_everybody_pulls_what_is_public(self, registry: Members) -> None:
        """Without a word, as nobody, as somebody else, and with a token that was made for something else."""
        manifest, blob = registry.push("ann/public", ANN)
        registry.publish("ann/public")
        other = [registry.token("repository:bob/x:pull", who=who) for who in (None, BOB)]
        for who in (None, basic(BOB), registry.token("repository:ann/public:pull"), *other):
            for path in (f"manifests/{manifest}", f"blobs/{blob}", "tags/list"):
                assert registry.ask("GET", f"/v2/ann/public/{path}", who).status_code == 200
        answer = registry.ask("POST", "/v2/ann/public/blobs/uploads/")
        assert_challenged(registry, answer, "repository:ann/public:pull,push")

    def test_nobody_in_particular_is_always_asked_who_they_are(self, registry: Members) -> None:
        """With or without a token of nobody, whether there is such a repository or not."""
        registry.push("ann/hidden", ANN)
        for name in ("ann/hidden", "ann/missing"):
            scope = f"repository:{name}:pull"
            assert_challenged(registry, registry.ask("GET", f"/v2/{name}/tags/list"), scope)
            answer = registry.ask("GET", f"/v2/{name}/tags/list", registry.token(scope))
            assert_challenged(registry, answer, scope, "insufficient_scope")

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_somebody_who_may_not_is_told_the_same_of_what_is_not_there(self, registry: Members, method: str) -> None:
        """403 either way, word for word but for the name."""
        manifest, blob = registry.push("ann/secret", ANN)
        scope = "repository:ann/secret:pull repository:ann/absent:pull"
        for who in (basic(BOB), registry.token(scope, who=BOB)):
            for path in ("tags/list", f"manifests/{manifest}", "manifests/no-tag", f"blobs/{blob}", f"blobs/{ZEROS}"):
                there, absent = (registry.ask(method, f"/v2/ann/{name}/{path}", who) for name in ("secret", "absent"))
                assert there.status_code == absent.status_code == 403
                assert there.text.replace("secret", "absent") == absent.text
                assert told(there) == told(absent)

    def test_who_may_is_told_what_is_not_there(self, registry: Members) -> None:
        """The owner of a name space gets 404, in the protocol's words."""
        answer = registry.ask("GET", "/v2/ann/never/tags/list", basic(ANN))
        assert (answer.status_code, code(answer)) == (404, "NAME_UNKNOWN")
        answer = registry.ask("GET", "/v2/ann/never/manifests/latest", basic(ANN))
        assert (answer.status_code, code(answer)) in {(404, "MANIFEST_UNKNOWN"), (404, "NAME_UNKNOWN")}

    def test_somebody_else_cannot_push(self, registry: Members) -> None:
        """DENIED, which clients show instead of trying again; and nothing was made."""
        for name in ("ann/pushed", "box", "library/box"):
            scope = f"repository:{name}:pull,push"
            for who in (basic(BOB), registry.token(scope, who=BOB)):
                answer = registry.ask("POST", f"/v2/{name}/blobs/uploads/", who)
                assert (answer.status_code, code(answer)) == (403, "DENIED")

    def test_who_may_pull_alone_is_told_just_that(self, registry: Members) -> None:
        """Of a public repository, and of a private one that was granted; what one may is not denied."""
        for name in ("ann/open", "ann/lent"):
            registry.push(name, ANN)
        registry.publish("ann/open")
        registry.grant("bob", "ann/lent", Action.PULL)
        for name in ("ann/open", "ann/lent"):
            scope = f"repository:{name}:pull,push"
            for who in (basic(BOB), registry.token(scope, who=BOB)):
                answer = registry.ask("POST", f"/v2/{name}/blobs/uploads/", who)
                assert (answer.status_code, code(answer)) == (403, "DENIED")
                (error,) = answer.json()["errors"]
                assert error["message"] == f"you may not push here: of {name} you may pull, and no more"

    def test_a_short_name_and_the_full_one_are_one_scope(self, registry: Members) -> None:
        """A token for `box` is good for `library/box`."""
        registry.grant("ann", "library/box", *Action)
        registry.push("box", ANN)
        for asked in ("box", "library/box"):
            token = registry.token(f"repository:{asked}:pull", who=ANN)
            for used in ("box", "library/box"):
                assert registry.ask("GET", f"/v2/{used}/tags/list", token).status_code == 200

    def test_the_catalogue_shows_what_the_caller_may_pull(self, fresh: Members) -> None:
        """It wants a token for lists or a password; strangers with a token of nobody see what is public."""
        for name, who in [("ann/one", ANN), ("ann/two", ANN), ("bob/three", BOB)]:
            fresh.push(name, who)
        fresh.publish("ann/two")
        for who, expected in [
            (basic(ANN), ["ann/one", "ann/two"]),
            (fresh.token(CATALOGUE, who=ANN), ["ann/one", "ann/two"]),
            (basic(BOB), ["ann/two", "bob/three"]),
            (fresh.token(CATALOGUE), ["ann/two"]),
        ]:
            assert fresh.ask("GET", "/v2/_catalog", who).json() == {"repositories": expected}
        assert_challenged(fresh, fresh.ask("GET", "/v2/_catalog"), CATALOGUE)
