// The table of kinds, conditions, and times in the text form of Kubernetes.
#include "egw/model/meta.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>

#include "egw/model/resources.hpp"
#include "egw/model/text.hpp"

namespace egw::model {
namespace {

constexpr std::array<KindInfo, 13> kKinds{{
    {Kind::kEgressGateway, kGroup, "v1beta1", "EgressGateway", "egressgateway", "egressgateways",
     "egw", false},
    {Kind::kEgressPolicy, kGroup, "v1beta1", "EgressPolicy", "egresspolicy", "egresspolicies",
     "egp", true},
    {Kind::kEgressClusterPolicy, kGroup, "v1beta1", "EgressClusterPolicy", "egressclusterpolicy",
     "egressclusterpolicies", "egcp", false},
    {Kind::kEgressTunnel, kGroup, "v1beta1", "EgressTunnel", "egresstunnel", "egresstunnels", "egt",
     false},
    {Kind::kEgressEndpointSlice, kGroup, "v1beta1", "EgressEndpointSlice", "egressendpointslice",
     "egressendpointslices", "egep", true},
    {Kind::kEgressClusterEndpointSlice, kGroup, "v1beta1", "EgressClusterEndpointSlice",
     "egressclusterendpointslice", "egressclusterendpointslices", "egcep", false},
    {Kind::kEgressClusterInfo, kGroup, "v1beta1", "EgressClusterInfo", "egressclusterinfo",
     "egressclusterinfos", "egci", false},
    {Kind::kNode, "", "v1", "Node", "node", "nodes", "no", false},
    {Kind::kPod, "", "v1", "Pod", "pod", "pods", "po", true},
    {Kind::kNamespace, "", "v1", "Namespace", "namespace", "namespaces", "ns", false},
    {Kind::kEvent, "events.k8s.io", "v1", "Event", "event", "events", "ev", true},
    {Kind::kCalicoIpPool, "crd.projectcalico.org", "v1", "IPPool", "ippool", "ippools",
     "calicoippool", false},
    {Kind::kServiceCidr, "networking.k8s.io", "v1", "ServiceCIDR", "servicecidr", "servicecidrs",
     "svccidr", false},
}};

bool same_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

// Years that RFC 3339 can write.
constexpr std::int64_t kFirstMs = -62167219200000;  // 0000-01-01T00:00:00Z
constexpr std::int64_t kLastMs = 253402300799999;   // 9999-12-31T23:59:59.999Z

struct Broken {
  int year;
  unsigned month, day;
  long long hour, minute, second, ms;
};

Broken break_down(std::int64_t unix_ms) {
  using namespace std::chrono;
  const milliseconds t{std::clamp(unix_ms, kFirstMs, kLastMs)};
  const auto day_count = floor<days>(t);
  const year_month_day date{sys_days{day_count}};
  const hh_mm_ss<milliseconds> clock{t - day_count};
  return {static_cast<int>(date.year()),     static_cast<unsigned>(date.month()),
          static_cast<unsigned>(date.day()), clock.hours().count(),
          clock.minutes().count(),           clock.seconds().count(),
          clock.subseconds().count()};
}

// Takes RFC 3339 text apart from the left; `good` stays true as long as everything fitted.
struct TimeText {
  std::string_view rest;
  bool good = true;

  int digits(std::size_t count, int low, int high) {
    if (!good || rest.size() < count) return fail_with(low);
    int value = 0;
    for (std::size_t i = 0; i < count; ++i) {
      if (rest[i] < '0' || rest[i] > '9') return fail_with(low);
      value = value * 10 + (rest[i] - '0');
    }
    rest.remove_prefix(count);
    return value < low || value > high ? fail_with(low) : value;
  }
  void expect(std::string_view any_of) {
    if (!good || rest.empty() || any_of.find(rest[0]) == std::string_view::npos) {
      good = false;
    } else {
      rest.remove_prefix(1);
    }
  }
  // ".5" is 500; digits beyond milliseconds are dropped.
  int fraction_ms() {
    if (!good || rest.empty() || rest[0] != '.') return 0;
    rest.remove_prefix(1);
    int ms = 0;
    int scale = 100;
    std::size_t count = 0;
    for (; count < rest.size() && rest[count] >= '0' && rest[count] <= '9'; ++count) {
      ms += (rest[count] - '0') * scale;
      scale /= 10;
    }
    if (count == 0 || count > 9) good = false;
    rest.remove_prefix(count);
    return ms;
  }
  // Minutes east of UTC.
  int offset() {
    if (!good || rest.empty()) return fail_with(0);
    const char sign = rest[0];
    expect("Zz+-");
    if (sign == 'Z' || sign == 'z') return 0;
    const int hours = digits(2, 0, 23);
    expect(":");
    const int minutes = hours * 60 + digits(2, 0, 59);
    return sign == '-' ? -minutes : minutes;
  }

 private:
  int fail_with(int value) {
    good = false;
    return value;
  }
};

}  // namespace

std::string KindInfo::api_version() const {
  return group.empty() ? std::string(version) : fmt::format("{}/{}", group, version);
}

std::span<const KindInfo> all_kinds() { return kKinds; }

const KindInfo& info(Kind kind) { return kKinds.at(static_cast<std::size_t>(kind)); }

const KindInfo* find_kind(std::string_view name) {
  // kubectl also takes egressgateways.egressgateway.spidernet.io.
  if (const std::size_t dot = name.find('.'); dot != std::string_view::npos) {
    if (!same_ignoring_case(name.substr(dot + 1), kGroup)) return nullptr;
    const KindInfo* found = find_kind(name.substr(0, dot));
    return found != nullptr && found->group == kGroup ? found : nullptr;
  }
  for (const KindInfo& k : kKinds) {
    for (const std::string_view known : {k.kind, k.plural, k.singular, k.short_name}) {
      if (same_ignoring_case(name, known)) return &k;
    }
  }
  return nullptr;
}

std::string_view to_string(ConditionStatus status) {
  return status.is_unknown() ? "Unknown" : status ? "True" : "False";
}

bool set_condition(Conditions& conditions, Condition wanted, std::int64_t now_ms) {
  // Whole seconds: what metav1.Time can hold, so that a stored condition reads back as it was set.
  wanted.transition_ms = now_ms - (now_ms % 1000 + 1000) % 1000;
  const auto it = std::find_if(conditions.begin(), conditions.end(),
                               [&](const Condition& c) { return c.type == wanted.type; });
  if (it == conditions.end()) {
    conditions.push_back(std::move(wanted));
    return true;
  }
  if (it->status == wanted.status) wanted.transition_ms = it->transition_ms;
  if (*it == wanted) return false;
  *it = std::move(wanted);
  return true;
}

bool remove_condition(Conditions& conditions, std::string_view type) {
  return std::erase_if(conditions, [&](const Condition& c) { return c.type == type; }) > 0;
}

const Condition* find_condition(const Conditions& conditions, std::string_view type) {
  const auto it = std::find_if(conditions.begin(), conditions.end(),
                               [&](const Condition& c) { return c.type == type; });
  return it == conditions.end() ? nullptr : &*it;
}

Labels namespace_labels(const Namespace* stored, const std::string& name) {
  Labels labels;
  if (stored != nullptr) labels = stored->meta.labels;
  labels[std::string(kNamespaceNameLabel)] = name;
  return labels;
}

std::string format_time(std::int64_t unix_ms) {
  const Broken t = break_down(unix_ms);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", t.year, t.month, t.day, t.hour,
                     t.minute, t.second);
}

std::string format_micro_time(std::int64_t unix_ms) {
  const Broken t = break_down(unix_ms);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}000Z", t.year, t.month, t.day,
                     t.hour, t.minute, t.second, t.ms);
}

Result<std::int64_t> parse_time(std::string_view text) {
  using namespace std::chrono;
  TimeText in{text};
  const int y = in.digits(4, 0, 9999);
  in.expect("-");
  const int mon = in.digits(2, 1, 12);
  in.expect("-");
  const int d = in.digits(2, 1, 31);
  in.expect("Tt");
  const int h = in.digits(2, 0, 23);
  in.expect(":");
  const int min = in.digits(2, 0, 59);
  in.expect(":");
  const int s = in.digits(2, 0, 60);
  const int ms = in.fraction_ms();
  const int offset = in.offset();
  const year_month_day date{year{y}, month{static_cast<unsigned>(mon)},
                            day{static_cast<unsigned>(d)}};
  if (!in.good || !in.rest.empty() || !date.ok()) {
    return fail(Errc::kInvalid, "",
                fmt::format("\"{}\" is not a time; want RFC 3339, like 2024-05-01T12:00:00Z",
                            shortened(text, 60)));
  }
  const auto t = sys_days{date}.time_since_epoch() + hours{h} + minutes{min - offset} + seconds{s} +
                 milliseconds{ms};
  return duration_cast<milliseconds>(t).count();
}

}  // namespace egw::model
