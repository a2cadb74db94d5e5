// Addresses, prefixes, ranges, pools and label selectors: what parses has one canonical text that
// parses to the same value, and the algebra of pools agrees with membership. The first byte
// chooses.
#include <nlohmann/json.hpp>

#include "egw/model/address.hpp"
#include "egw/model/ip_pool.hpp"
#include "egw/model/selector.hpp"
#include "fuzz/fuzz.hpp"

using namespace egw;
using fuzz::require;

namespace {

template <class T>
void round_trip(std::string_view text) {
  const auto value = T::parse(text);
  if (!value) {
    require(!value.error().message.empty(), "a refusal says why");
    return;
  }
  const auto again = T::parse(value->to_string());
  require(again.has_value() && *again == *value, "canonical text parses to the same value");
}

void pools(std::string_view text) {
  std::vector<std::string> entries;
  while (!text.empty() && entries.size() < 32) {
    const auto end = text.find(',');
    entries.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  for (const auto family : {model::Family::kV4, model::Family::kV6}) {
    std::vector<Error> errors;
    const auto pool = model::IpPool::parse_valid(family, entries, "spec.pool", &errors);
    require(errors.size() <= entries.size(), "one error per entry");
    require(pool.empty() == (pool.count() == 0), "count and empty agree");
    if (pool.empty()) continue;
    require(pool.contains(pool.first()), "the first is in the pool");
    require(pool.rank(pool.first()) == 0, "rank of the first");
    const auto next = pool.next_after(pool.first());
    require(pool.contains(next), "the next is in the pool");
    require(pool.minus(pool).empty(), "a pool minus itself");
    auto one_less = pool;
    require(one_less.erase(pool.first()) && !one_less.contains(pool.first()), "erase");
    require(one_less.insert(pool.first()) && one_less == pool, "insert undoes erase");
  }
}

void selectors(std::string_view text) {
  const auto selector = model::LabelSelector::parse_text(text);
  if (!selector) return;
  const auto again = model::decode_selector(model::encode_selector(*selector), "selector");
  // Text allows what an object does not (a key twice, odd characters); what both take is equal.
  if (!again) return;
  const model::Labels labels{{"a", "b"}, {"app", "shop"}};
  require(again->matches(labels) == selector->matches(labels), "one meaning in both forms");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text = fuzz::text(data + 1, size - 1);
  switch (data[0] % 5) {
    case 0:
      round_trip<model::Address>(text);
      break;
    case 1:
      round_trip<model::Prefix>(text);
      break;
    case 2:
      round_trip<model::Range>(text);
      break;
    case 3:
      pools(text);
      break;
    default:
      selectors(text);
      break;
  }
  return 0;
}
