"""Admission's rules that need the object alone, as CEL rules of the CRDs: for a cluster whose webhook is switched off or away.

They have admission's words (framework/core/admission*.cpp), so that it does not matter who refuses; tests/kube/test_rules.py
asks both the same. What they leave to admission, and why: docs/adr/0026-rules-in-the-crds.md. A rule stands as deep as it
can: the API server lets pass what an object had before where that very part is unchanged.
"""

# Bounds, without which the API server reckons a rule too dear: those of admission, and what no longer text can hold.
MAX_ENTRIES = 10000
MAX_ADDRESS = 45
MAX_ENTRY = {4: MAX_ADDRESS + 4, 6: 2 * MAX_ADDRESS + 1}  # room for IPv6 in the wrong list, so that that is told
# What one evaluation may cost is limited, too: rules that look for something in a list pass over longer ones.
MAX_SEARCHED = 1000
MAX_COUNTED = 16
OLD = "oldSelf.hasValue()"  # of a rule with optionalOldSelf: this is no new object


def rule(expression, message=None, at=None, says=None, **more):
    """message: a text; says: an expression for one with values in it; at: which field below is meant."""
    out = {"rule": expression}
    if message:
        out["message"] = message
    if says:
        out["messageExpression"] = says
    if at:
        out["fieldPath"] = at
    return {**out, **more}


def rules(*those):
    return {"x-kubernetes-validations": list(those)}


def given(text):
    """An optional text is there and not empty."""
    return f"has({text}) && {text} != ''"


def some(items):
    """An optional list is there and not empty."""
    return f"has({items}) && size({items}) > 0"


# ---- addresses ---------------------------------------------------------------------------------------------

# What can never be a source (framework/model/address.cpp).
NO_SOURCES = {4: ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
              6: ("::/80", "fe80::/9", "ff00::/8")}
NO_SOURCE = "unspecified, loopback, link-local, multicast, broadcast or reserved and cannot be a source; want "


def is_source(family, address):
    """Of an expression for the text of a valid address."""
    return "(" + " && ".join(f"!cidr('{block}').containsIP({address})" for block in NO_SOURCES[family]) + ")"


IS_ADDRESS = rule("self == '' || isIP(self)", says="'\"' + self + '\" is not an IP address (like 10.6.1.55 or fd00::55)'")
ADDRESS = {"maxLength": MAX_ADDRESS, **rules(IS_ADDRESS)}


def eip(family):
    return {"maxLength": MAX_ADDRESS, **rules(
        IS_ADDRESS,
        rule(f"!isIP(self) || ip(self).family() == {family}",
             says=f"self + ' is not IPv{family}; want an address of that family'"),
        rule(f"!isIP(self) || ip(self).family() != {family} || {is_source(family, 'self')}",
             says=f"self + ' is {NO_SOURCE}an address of the gateway\\'s pool'"))}


PREFIX = {"maxLength": MAX_ADDRESS + len("/128"), **rules(rule(
    "isIP(self) || isCIDR(self)", says="'\"' + self + '\" is not a prefix (like 10.6.0.0/16 or fd00::/64) or an address'"))}

# ---- pools -------------------------------------------------------------------------------------------------


def first(entry):
    return f"{entry}.substring(0, {entry}.indexOf('-'))"


def last(entry):
    return f"{entry}.substring({entry}.indexOf('-') + 1)"


def number(parts, begin=0):
    """An IPv4 address as a number, of four texts in a list."""
    return "(" + " + ".join(f"int({parts}[{begin + i}]) * {256 ** (3 - i)}" for i in range(4)) + ")"


# IPv6 has no numbers in CEL. Two addresses that differ in the last group alone compare as texts, as long as these have one
# spelling: what matches this is not judged.
def is_odd(text):
    return f"{text}.matches('[^-0-9a-f:]|:0[^-:]')"


def front(text):
    return f"{text}.substring(0, {text}.lastIndexOf(':'))"


def at_most(a, b):
    return f"(size({a}) < size({b}) || size({a}) == size({b}) && {a} <= {b})"


def entry(family):
    """An address, a range or a prefix of a pool. Each rule passes over what an earlier one refuses: that stands last, as what is
    good, of which there may be many, is known by then; an error before it is none (a || b has one if both have or none is true).
    """
    begin, end = first("self"), last("self")
    a_prefix, a_range = "self.contains('/')", "self.contains('-')"
    ends = f"isIP({begin}) && isIP({end})"
    valid = f"({a_prefix} ? isCIDR(self) : {a_range} ? {ends} : isIP(self))"
    parts = "[self.replace('-', '.').split('.')]"
    if family == 4:
        fits = "!self.contains(':')"
        in_order = f"{parts}.all(p, {number('p')} <= {number('p', 4)}) || !({ends} && {fits})"
        # What lies between the ends.
        spans = f"{parts}.exists(p, " + " || ".join(
            f"int(p[0]) * 256 + int(p[1]) < {block} && int(p[4]) * 256 + int(p[5]) > {block}" for block in (127 * 256, 169 * 256 + 254)) + ")"
        between = [f"!{a_range} || !{spans} || !({ends} && {fits})"]
    else:
        fits = f"({a_range} ? {begin}.contains(':') && {end}.contains(':') : self.contains(':'))"
        dash = "self.indexOf('-')"
        in_order = (f"2 * {dash} + 1 < size(self) || 2 * {dash} + 1 == size(self) && {begin} <= {end} || {front(begin)} != {front(end)} || "
                    f"{is_odd('self')}")
        between = []  # the blocks are the beginning and the end of all addresses
    of_prefix = " && ".join(f"!cidr(self).containsCIDR('{block}') && !cidr('{block}').containsCIDR(self)" for block in NO_SOURCES[family])
    no_source = f"self + ' holds what is {NO_SOURCE}unicast addresses that are routed to the gateway nodes'"
    sources = [f"!isIP(self) || {is_source(family, 'self')}", f"!isCIDR(self) || {of_prefix}",
               *(f"!{a_range} || {is_source(family, one)} || !({ends})" for one in (begin, end)), *between]
    return {"maxLength": MAX_ENTRY[family], **rules(
        rule(valid, says=f"'\"' + self + '\" is not ' + ({a_prefix} ? 'a prefix (like 10.6.1.0/28 or fd00::/120)' : "
                         f"{a_range} ? 'a range: want two IP addresses (like 10.6.1.55-10.6.1.60)' : "
                         "'an IP address (like 10.6.1.55 or fd00::55)')"),
        rule(f"{fits} || !{valid}",
             says=f"'\"' + self + '\" is not IPv{family}; write it under the other family\\'s list or take it out'"),
        rule(f"!{a_range} || {in_order}",
             says=f"'\"' + self + '\" is a reversed range; write ' + {end} + '-' + {begin}"),
        *(rule(one, says=no_source) for one in sources))}


def holds(family, address):
    """Of an entry e of a pool; true, too, for what cannot be told here."""
    begin, end = first("e"), last("e")
    if family == 4:
        in_range = (f"[(e + '.' + {address}).replace('-', '.').split('.')].exists(p, size(p) != 12 || "
                    f"{number('p')} <= {number('p', 8)} && {number('p', 8)} <= {number('p', 4)})")
        # A prefix leaves out its first and its last address.
        sizes = ", ".join(str(2 ** (32 - length)) for length in range(31))
        inside = (f"(cidr(e).prefixLength() > 30 || [{address}.split('.')].exists(p, [{number('p')}].exists(n, "
                  f"[[{sizes}][cidr(e).prefixLength()]].exists(s, n % s != 0 && n % s != s - 1))))")
    else:
        in_range = (f"({is_odd('e')} || [{begin}].exists(a, [{end}].exists(b, {front('a')} != {front('b')} || "
                    f"{front('a')} == {front(address)} && {at_most('a', address)} && {at_most(address, 'b')})))")
        inside = "true"
    return (f"(e.contains('/') ? !isCIDR(e) || cidr(e).containsIP({address}) && {inside} : "
            f"e.contains('-') ? {in_range} : isIP(e) && ip(e) == ip({address}))")


def default_rules():
    out = []
    for family, other in ((4, 6), (6, 4)):
        pool, default = f"self.ipv{family}", f"self.ipv{family}DefaultEIP"
        unclear = f"{is_odd(default)} || " if family == 6 else ""
        known = f"isIP({default}) && ip({default}).family() == {family}"
        out += [
            rule(f"!({given(default)} && isIP({default})) || has({pool}) && size({pool}) > {MAX_SEARCHED} || "
                 f"{known} && {some(pool)} && ({unclear}{pool}.exists(e, {holds(family, default)}))",
                 says=f"{default} + ' is not in spec.ippools.ipv{family}; want an address of the pool'", at=f".ipv{family}DefaultEIP"),
            rule(f"!({some(pool)} && {some(f'self.ipv{other}')} && {given(f'self.ipv{other}DefaultEIP')}) || {given(default)}",
                 "empty, while the other family's default is given; want both, they are one pair, or neither: then the first of each "
                 "pool is taken", at=f".ipv{family}DefaultEIP"),
        ]
    return out


def count_rule():
    """Of a new object, where both pools list a few addresses one by one, none twice. (While one family is switched off, an old
    object's other pool may change alone.)"""
    indexes = "[" + ", ".join(str(i) for i in range(MAX_COUNTED)) + "]"

    def countable(pool):
        twice = f"{indexes}.exists(i, {indexes}.exists(j, i < j && j < size({pool}) && {pool}[i] == {pool}[j]))"
        return f"size({pool}) <= {MAX_COUNTED} && {pool}.all(e, isIP(e) && string(ip(e)) == e) && !{twice}"

    four, six = "self.ipv4", "self.ipv6"
    return rule(f"{OLD} || !({some(four)} && {some(six)} && size({four}) != size({six}) && {countable(four)} && {countable(six)})",
                "more addresses of one family than of the other; EIPs come in pairs: want as many of each",
                optionalOldSelf=True)


POOLS = rules(*default_rules(), count_rule())

# ---- selectors ---------------------------------------------------------------------------------------------

NAME = r"[^\W_]([-\w.]{0,61}[^\W_])?"
KEY = rf"^([^\W_]([-a-z0-9.]{{0,251}}[^\W_])?/)?{NAME}$"
# Rules for these would cost too much: there is no bound on their number.
LABEL_KEY = {"maxLength": 317, "pattern": KEY}
LABEL_VALUE = {"maxLength": 63, "pattern": f"^({NAME})?$"}
LABELS = rules(rule(f"self.all(k, k.matches(r'{KEY}'))", "want label keys: up to 63 letters, digits, '-', '_', '.', with an "
                    "optional DNS prefix and '/'"))
EXPRESSION = rules(
    rule(f"!(self.operator in ['In', 'NotIn']) || {some('self.values')}", "want at least one value for In and NotIn", at=".values"),
    rule(f"self.operator in ['In', 'NotIn'] || !({some('self.values')})", "want no values for Exists and DoesNotExist", at=".values"))

# ---- specs -------------------------------------------------------------------------------------------------

# A status is written, and a finalizer taken off, whatever the object was stored as.
NO_SELECTOR = "empty; want the labels of the gateway nodes, e.g. matchLabels: {egress: \"true\"}"


def has_spec(message, at):
    return rules(rule(f"has(self.spec) || {OLD} && !has(oldSelf.value().spec)", message, at=at, optionalOldSelf=True))


GATEWAY = has_spec(NO_SELECTOR, ".spec.nodeSelector.selector")


def family_stays(family):
    pools = f"self.ippools.ipv{family}"
    return rule(
        f"!(has(self.ippools) && {some(pools)}) || has(oldSelf.ippools) && {some(pools.replace('self', 'oldSelf'))}",
        f"the stored gateway has no IPv{family} addresses, and a family cannot be added; make a new EgressGateway with the families "
        "that you want", at=f".ippools.ipv{family}")


GATEWAY_SPEC = rules(
    rule(f"has(self.nodeSelector) && has(self.nodeSelector.selector) && ({some('self.nodeSelector.selector.matchLabels')} || "
         f"{some('self.nodeSelector.selector.matchExpressions')})", NO_SELECTOR, at=".nodeSelector.selector"),
    family_stays(4), family_stays(6))


def no_pods(cluster_wide):
    if cluster_wide:
        return "neither podSelector, podSubnet nor namespaceSelector; want one of them (podSelector: {} is every pod)"
    return "neither podSelector nor podSubnet; want one of them (podSelector: {} is every pod of the namespace)"


def policy(cluster_wide):
    return has_spec(no_pods(cluster_wide), ".spec.appliedTo")


def stays(field, was, now):
    """A field that cannot be changed. was, now: expressions for its two values."""
    return rule(f"{was} == {now}", at=field,
                says=f"'\"' + {now} + '\": cannot be changed, it is \"' + {was} + '\"; delete the policy and create it anew'")


def optional(text, otherwise="''"):
    return f"(has({text}) ? {text} : {otherwise})"


def word_of(flag):
    return f"(has({flag}) && {flag} ? 'true' : 'false')"


def address_stays(key):
    now, was = optional(f"self.{key}"), optional(f"oldSelf.{key}")
    out = stays(f".{key}", was, now)
    out["rule"] += f" || isIP({now}) && isIP({was}) && ip({now}) == ip({was})"
    return out


def policy_spec(cluster_wide):
    gateway, before = optional("self.egressGatewayName"), optional("oldSelf.egressGatewayName")
    name = stays(".egressGatewayName", before, gateway)
    name["rule"] = f"{before} == '' || {name['rule']}"
    everyone = " || has(self.appliedTo.namespaceSelector)" if cluster_wide else ""
    return rules(
        rule(f"has(self.appliedTo) && (has(self.appliedTo.podSelector) || {some('self.appliedTo.podSubnet')}{everyone})",
             no_pods(cluster_wide), at=".appliedTo"),
        name)


APPLIED_TO = rules(rule(f"!(has(self.podSelector) && {some('self.podSubnet')})", "podSelector and podSubnet; want one of the two"))

EGRESS_IP = rules(
    rule(f"!(has(self.useNodeIP) && self.useNodeIP && ({given('self.ipv4')} || {given('self.ipv6')}))",
         "useNodeIP: true with an address; want the node's address (leave ipv4 and ipv6 out) or an EIP (useNodeIP: false)"),
    address_stays("ipv4"), address_stays("ipv6"),
    stays(".useNodeIP", word_of("oldSelf.useNodeIP"), word_of("self.useNodeIP")),
    stays(".allocatorPolicy", optional("oldSelf.allocatorPolicy", "'default'"), optional("self.allocatorPolicy", "'default'")))

INFO = rules(rule(
    f"{OLD} || self.metadata.name == 'default' || self.metadata.name.matches('^peers-0*[1-9][0-9]*$')",
    says="'\"' + self.metadata.name + '\": there is one EgressClusterInfo for people, named default; change that one'",
    at=".metadata", optionalOldSelf=True))
