"""What the client asks about the person who is signed in."""

from hutch.client import answers, paths
from hutch.client.asking import Asking


class Oneself(Asking):
    """What the client asks about the person who is signed in."""

    def login(self, name: str, password: str) -> answers.SignedIn:
        return self._open("POST", "/login", {"name": name, "password": password})

    def logout(self) -> None:
        self._do("POST", "/logout")

    def me(self) -> answers.Me:
        return self._get("/me")

    def change_password(self, old: str, new: str) -> None:
        self._do("PUT", "/me/password", {"old": old, "new": new})

    def list_keys(self, user: str | None = None) -> list[answers.Key]:
        return self._get("/keys", user=user)

    def add_key(
        self, public: str, *, title: str | None = None, user: str | None = None
    ) -> answers.Key:
        return self._do("POST", "/keys", {"public": public, "title": title, "user": user})

    def remove_key(self, key_id: str) -> None:
        self._do("DELETE", f"/keys/{paths.part('key', key_id)}")

    def ssh_config(self, alias: str | None = None) -> answers.SshConfig:
        """What one's ssh has to know; `alias` is what the gateway is called in it."""
        return self._get("/ssh-config", alias=alias)

    def list_tokens(self) -> list[answers.Token]:
        return self._get("/tokens")

    def create_token(self, title: str, *, scope: str, days: int | None) -> answers.NewToken:
        # `days` None means that it never expires, so it is sent, unlike other absent values.
        body = {"title": title, "scope": scope, "days": days}
        return self._request("POST", "/tokens", body=body)

    def revoke_token(self, token_id: str) -> None:
        self._do("DELETE", f"/tokens/{paths.part('token', token_id)}")
