"""Ties an account to its provider and its address, and names what is counted and held of it.

Strategy: what a provider refuses for the key or for the address is held under a fingerprint of both, so that a key or an address
that was corrected is asked at once, by whatever process. Must never know what is used or held now.
"""

from __future__ import annotations

from .account import AccountConfig
from .frozen import field, frozen_value
from .provider import Endpoint, Provider
from .secret import fingerprint
from .transport import Transport


@frozen_value
class BoundAccount:
    """One account, ready to be called. `scope` names its buckets: the account's, or its quota group's.

    `access` names the holds that say that its address or its key is wrong: one that was corrected is another one.
    """

    account: AccountConfig
    provider: Provider
    endpoint: Endpoint
    wire: Transport = field(repr=False)
    scope: str
    access: str

    @property
    def hold_owners(self) -> tuple[str, ...]:
        """What a hold's key begins with, before "|" and a model; the account's id first."""
        return tuple(dict.fromkeys((self.account.id, self.scope, self.access, self.embed_access)))

    @property
    def embed_access(self) -> str:
        """What holds of a model begin with that embeds nothing here, and may chat all the same."""
        return f"{self.access} embed"

    def shown_key(self, key: str) -> str:
        """The key of a hold as people read it: the account's id or its group's name, and "|" with the model if it is one's."""
        owner, mark, model = key.partition("|")
        return f"{self.account.id}{mark}{model}" if owner in (self.access, self.embed_access) else key

    @property
    def server(self) -> str:
        """What is out when the provider is: one name at one address."""
        return f"{self.account.provider} {self.endpoint.base_url}"


def bind(account: AccountConfig, provider: Provider, transport: Transport) -> BoundAccount:
    """`account` at its provider; `transport` serves where the provider has no wire of its own."""
    base = (account.base_url or provider.base_url).rstrip("/")
    scope = f"group:{account.quota_group}" if account.quota_group else account.id
    endpoint = Endpoint(base, account.auth.api_key, account.headers)
    headers = [text for name, value in account.headers.items() for text in (name, value)]
    access = f"{account.id}#{fingerprint(base, account.auth.api_key, *headers)}"
    return BoundAccount(account, provider, endpoint, getattr(provider, "wire", None) or transport, scope, access)
