// Plan to store writes (plan_writer.hpp).
#include "egw/runtime/plan_writer.hpp"

#include <functional>
#include <set>
#include <utility>

#include "egw/model/codec.hpp"
#include "egw/runtime/write_result.hpp"

namespace egw::runtime {
namespace asio = boost::asio;
using host::WriteRequest;
using model::Kind;

namespace {

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

Kind policy_kind(const model::EgressPolicy& policy) {
  return policy.meta.ns.empty() ? Kind::kEgressClusterPolicy : Kind::kEgressPolicy;
}

template <class R>
void status_request(WriteRequest& request, const R& resource) {
  request.op = WriteRequest::Op::kUpdateStatus;
  request.document = model::encode(resource);
  request.expected_revision = resource.meta.revision;
}

void policy_request(WriteRequest& request, const model::EgressPolicy& policy) {
  if (policy.meta.ns.empty()) {
    model::EgressClusterPolicy cluster_wide;
    static_cast<model::EgressPolicy&>(cluster_wide) = policy;
    status_request(request, cluster_wide);
  } else {
    status_request(request, policy);
  }
}

template <class R>
void create_request(WriteRequest& request, const R& resource) {
  request.op = WriteRequest::Op::kCreate;
  request.document = model::encode(resource);
}

// Everything but SetMeta, which needs the stored document.
void fill_request(WriteRequest& request, const core::Write& write) {
  const auto fill = Overloaded{
      [&](const core::CreateTunnel& create) {
        model::EgressTunnel tunnel;
        tunnel.meta.name = create.node;
        tunnel.meta.finalizers = {std::string(model::kTunnelFinalizer)};
        create_request(request, tunnel);
      },
      [&](const core::CreateClusterInfo& create) {
        model::EgressClusterInfo cluster_info;
        cluster_info.meta.name = create.name;
        cluster_info.spec = create.spec;
        create_request(request, cluster_info);
      },
      [&](const core::DeleteTunnel&) { request.op = WriteRequest::Op::kDelete; },
      [&](const core::DeleteClusterInfo&) { request.op = WriteRequest::Op::kDelete; },
      [&](const core::WriteTunnel& step) { status_request(request, step.tunnel); },
      [&](const core::WriteClusterInfo& step) { status_request(request, step.info); },
      [&](const core::WriteGateway& step) { status_request(request, step.gateway); },
      [&](const core::WritePolicy& step) { policy_request(request, step.policy); },
      [&](const core::SetMeta& step) {
        request.op = WriteRequest::Op::kUpdate;
        request.expected_revision = step.expected_revision;
      },
  };
  std::visit(fill, write);
}

// So many writes in a row that were not served, each of another object: it is the store.
constexpr int kFailuresOfTheStore = 2;

// Whether later writes of the batch must not be made when this one was refused: they may use an id
// that the books are to have first. The other EgressClusterInfos hold peers alone.
bool others_depend_on(const core::Write& write) {
  const auto* create = std::get_if<core::CreateClusterInfo>(&write);
  const auto* status = std::get_if<core::WriteClusterInfo>(&write);
  return (create != nullptr && create->name == model::kClusterInfoName) ||
         (status != nullptr && status->info.meta.name == model::kClusterInfoName);
}

bool is_creation(const core::Write& write) {
  return std::holds_alternative<core::CreateTunnel>(write) ||
         std::holds_alternative<core::CreateClusterInfo>(write);
}

std::uint64_t expected_revision(const core::Write& write) {
  WriteRequest request;
  fill_request(request, write);
  return request.expected_revision;
}

// As the API's verbs are called, for people.
std::string_view verb_of(const core::Write& write) {
  const auto name = Overloaded{[](const core::CreateTunnel&) { return "create"; },
                               [](const core::CreateClusterInfo&) { return "create"; },
                               [](const core::DeleteTunnel&) { return "delete"; },
                               [](const core::DeleteClusterInfo&) { return "delete"; },
                               [](const core::SetMeta&) { return "update"; },
                               [](const auto&) { return "update status"; }};
  return std::visit(name, write);
}

void add_content(const nlohmann::json& value, std::size_t& hash) {
  const auto add = [&hash](const std::string& text) {
    hash = hash * 31 + std::hash<std::string>{}(text);
  };
  if (!value.is_structured())
    return add(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  for (const auto& [key, below] : value.items()) {
    if (value.is_object() && (key.ends_with("Time") || key == "resourceVersion")) continue;
    add(key);
    add_content(below, hash);
  }
}

}  // namespace

std::size_t content_of(const nlohmann::json& document) {
  std::size_t hash = 0;
  add_content(document, hash);
  return hash;
}

std::size_t PlanWriter::content(const core::Write& write) {
  WriteRequest request;
  fill_request(request, write);
  if (const auto* meta = std::get_if<core::SetMeta>(&write)) {
    request.document = {meta->finalizers, meta->annotations};
  }
  return content_of(request.document);
}

WriteTarget target_of(const core::Write& write) {
  const auto find = Overloaded{
      [](const core::CreateTunnel& w) {
        return WriteTarget{Kind::kEgressTunnel, {"", w.node}};
      },
      [](const core::DeleteTunnel& w) {
        return WriteTarget{Kind::kEgressTunnel, {"", w.node}};
      },
      [](const core::CreateClusterInfo& w) {
        return WriteTarget{Kind::kEgressClusterInfo, {"", w.name}};
      },
      [](const core::DeleteClusterInfo& w) {
        return WriteTarget{Kind::kEgressClusterInfo, {"", w.name}};
      },
      [](const core::WriteTunnel& w) {
        return WriteTarget{Kind::kEgressTunnel, w.tunnel.meta.key()};
      },
      [](const core::WriteClusterInfo& w) {
        return WriteTarget{Kind::kEgressClusterInfo, w.info.meta.key()};
      },
      [](const core::WriteGateway& w) {
        return WriteTarget{Kind::kEgressGateway, w.gateway.meta.key()};
      },
      [](const core::WritePolicy& w) {
        return WriteTarget{policy_kind(w.policy), w.policy.meta.key()};
      },
      [](const core::SetMeta& w) {
        return WriteTarget{w.kind, w.key};
      },
  };
  return std::visit(find, write);
}

asio::awaitable<Result<WriteRequest>> PlanWriter::request_for(const core::Write& write) {
  WriteRequest request;
  const WriteTarget target = target_of(write);
  request.kind = target.kind;
  request.key = target.key;
  fill_request(request, write);
  if (const auto* meta = std::get_if<core::SetMeta>(&write)) {
    // The whole document is written back, with fields that this version does not know.
    auto stored = co_await store_.get(target.kind, target.key);
    if (!stored) co_return tl::unexpected(stored.error());
    if (stored->revision != meta->expected_revision) {
      sync_.adopt(target.kind, *stored);
      co_return fail(Errc::kConflict, target.key.to_string(), "has changed since it was read");
    }
    auto& metadata = stored->document["metadata"];
    metadata["finalizers"] = meta->finalizers;
    metadata["annotations"] = meta->annotations;
    request.document = std::move(stored->document);
  }
  co_return request;
}

asio::awaitable<Result<void>> PlanWriter::make(const core::Write& write, std::uint64_t term) {
  auto request = co_await request_for(write);
  if (!request) co_return tl::unexpected(request.error());
  request->term = term;
  const Kind kind = request->kind;
  const bool deletion = request->op == WriteRequest::Op::kDelete;
  auto outcome = co_await store_.write(std::move(*request));
  metrics_.store_write(kind, write_result(outcome));
  if (!outcome) {
    const Errc code = outcome.error().code;
    const bool done_before =
        (code == Errc::kNotFound && deletion) || (code == Errc::kExists && is_creation(write));
    if (done_before) co_return Result<void>{};
    co_return tl::unexpected(outcome.error());
  }
  if (!deletion) sync_.adopt(kind, outcome->object);
  co_return Result<void>{};
}

asio::awaitable<BatchEnd> PlanWriter::run(const core::Plan& plan, std::uint64_t term,
                                          std::function<bool()> may_go_on, Written written) {
  const std::uint64_t events_before = sync_.external_changes();
  int policies = 0;
  int metas = 0;
  made_ = 0;
  retry_at_ms_ = 0;
  failed_in_a_row_ = 0;
  forget_refusals(plan);
  complete_ = false;
  bool conflict = false;
  for (const core::Write* next : in_turn(plan)) {
    const core::Write& write = *next;
    if (!may_go_on()) co_return BatchEnd::kInterrupted;
    if (held_back(write)) continue;
    const auto* policy = std::get_if<core::WritePolicy>(&write);
    const bool patient = policy != nullptr || std::holds_alternative<core::SetMeta>(write);
    if (patient && ++(policy != nullptr ? policies : metas) > kPatientPerBatch &&
        sync_.external_changes() != events_before) {
      if (policy != nullptr) co_return BatchEnd::kInterrupted;
      continue;
    }
    if (policy != nullptr) last_policy_ = policy->policy.meta.key();
    const std::int64_t began = clock_.steady_ms();
    const auto made = co_await make(write, term);
    if (made) {
      ++made_;
      failed_in_a_row_ = 0;
      if (refusals_.any() && refusals_.taken(write_of(write))) {
        tell(LogLevel::kInfo, "what was refused has been written", write);
      }
      written(write, clock_.steady_ms() - began);
    } else if (made.error().code == Errc::kConflict && co_await unreadable(write)) {
      failed_in_a_row_ = 0;
      outdated_[write_of(write)] = expected_revision(write);
      hold_back(write, "the stored version cannot be read, so nothing is written over it", false);
    } else if (made.error().code == Errc::kConflict && patient) {
      failed_in_a_row_ = 0;
      conflict = true;
    } else if (const auto end = failed(write, made.error())) {
      co_return *end;
    }
  }
  last_policy_.reset();
  complete_ = true;
  co_return conflict ? BatchEnd::kConflict : BatchEnd::kDone;
}

// The plan's order, but for the policies: they go by name, beginning behind the last one that an
// interrupted batch has come to. Else policies that always differ would take every batch's share.
std::vector<const core::Write*> PlanWriter::in_turn(const core::Plan& plan) const {
  std::vector<const core::Write*> out;
  out.reserve(plan.writes.size());
  std::map<std::pair<bool, model::Key>, const core::Write*> policies;
  for (const core::Write& write : plan.writes) {
    if (const auto* policy = std::get_if<core::WritePolicy>(&write)) {
      const model::Key key = policy->policy.meta.key();
      policies.emplace(std::pair(last_policy_ && key <= *last_policy_, key), &write);
    } else {
      out.push_back(&write);
    }
  }
  for (const auto& [turn, write] : policies) out.push_back(write);
  return out;
}

// ---- what the store does not take --------------------------------------------------------------

PlanWriter::OneWrite PlanWriter::write_of(const core::Write& write) {
  return {target_of(write), write.index()};
}

void PlanWriter::tell(LogLevel level, std::string_view message, const core::Write& write,
                      std::string_view error) {
  const WriteTarget target = target_of(write);
  const std::string_view kind = model::info(target.kind).kind;
  const std::string object = target.key.to_string();
  if (error.empty()) {
    log_.log(level, message, {{"kind", kind}, {"object", object}, {"verb", verb_of(write)}});
  } else {
    log_.log(level, message,
             {{"kind", kind}, {"object", object}, {"verb", verb_of(write)}, {"error", error}});
  }
}

void PlanWriter::forget_refusals(const core::Plan& plan) {
  std::erase_if(outdated_, [&](const auto& entry) { return !refusals_.contains(entry.first); });
  if (!refusals_.any()) return;
  std::set<OneWrite> wanted;
  for (const auto& write : plan.writes) wanted.insert(write_of(write));
  refusals_.keep([&](const OneWrite& write) { return wanted.contains(write); }, clock_.steady_ms());
}

std::set<std::string> PlanWriter::refused_gateways() const {
  const std::size_t status = core::Write(core::WriteGateway{}).index();
  std::set<std::string> out;
  refusals_.each([&](const OneWrite& one) {
    if (one.second == status) out.insert(one.first.key.name);
  });
  return out;
}

bool PlanWriter::held_back(const core::Write& write) {
  if (!refusals_.any()) return false;
  const OneWrite one = write_of(write);
  if (!refusals_.contains(one)) return false;
  const auto outdated = outdated_.find(one);
  if (outdated != outdated_.end() && outdated->second != expected_revision(write)) {
    outdated_.erase(outdated);
    refusals_.at_once(one);
  }
  const std::int64_t until = refusals_.held_until(one, content(write));
  if (until <= clock_.steady_ms()) return false;
  look_again(until);
  return true;
}

void PlanWriter::look_again(std::int64_t at_ms) {
  retry_at_ms_ = retry_at_ms_ == 0 ? at_ms : std::min(retry_at_ms_, at_ms);
}

bool PlanWriter::written_from_newest(const core::Write& write) const {
  const auto is = [&](const auto& objects, const auto& name) {
    const auto known = objects.find(name);
    return known != objects.end() && known->second.meta.revision == expected_revision(write);
  };
  const WriteTarget target = target_of(write);
  const model::World& world = sync_.world();
  switch (target.kind) {
    case Kind::kEgressGateway:
      return is(world.gateways, target.key.name);
    case Kind::kEgressPolicy:
    case Kind::kEgressClusterPolicy:
      return is(world.policies, target.key);
    case Kind::kEgressTunnel:
      return is(world.tunnels, target.key.name);
    case Kind::kEgressClusterInfo:
      return is(world.cluster_infos, target.key.name);
    default:
      return false;
  }
}

// Of a write that has met a conflict: the World has seen what the store has, and yet keeps an older
// version, because that one cannot be read. No event is to be waited for.
asio::awaitable<bool> PlanWriter::unreadable(const core::Write& write) {
  if (others_depend_on(write) || !written_from_newest(write)) co_return false;
  const WriteTarget target = target_of(write);
  const auto stored = co_await store_.get(target.kind, target.key);
  co_return stored && stored->revision <= sync_.revision(target.kind) && written_from_newest(write);
}

// How the batch ends; nothing: it goes on.
std::optional<BatchEnd> PlanWriter::failed(const core::Write& write, const Error& error) {
  if (error.code == Errc::kConflict) return BatchEnd::kConflict;
  const bool others_wait = others_depend_on(write);
  // Deleted since the plan was made, with an event that is still on its way: as it should be.
  if (error.code == Errc::kNotFound && !is_creation(write) && !others_wait) {
    tell(LogLevel::kDebug, "what was to be written has gone", write);
    return std::nullopt;
  }
  const std::string text = error.to_string();
  if (error.code == Errc::kStaleTerm) {
    tell(LogLevel::kWarn, "a write was refused because of its term", write, text);
    return BatchEnd::kStaleTerm;
  }
  const bool refused = error.code == Errc::kDenied || error.code == Errc::kInvalid;
  if (others_wait || (!refused && ++failed_in_a_row_ >= kFailuresOfTheStore)) {
    if (text != last_failure_) {
      tell(LogLevel::kError, "a write failed; the others wait for it", write, text);
    }
    last_failure_ = text;
    if (!others_wait) {
      refusals_.refused(write_of(write), content(write), text, clock_.steady_ms(), true);
    }
    refusals_.store_failed();
    return BatchEnd::kUnavailable;
  }
  if (refused) failed_in_a_row_ = 0;  // the store serves
  hold_back(write, text, !refused);
  return std::nullopt;
}

void PlanWriter::hold_back(const core::Write& write, const std::string& why, bool failed) {
  const OneWrite one = write_of(write);
  const std::size_t what = content(write);
  if (refusals_.refused(one, what, why, clock_.steady_ms(), failed)) {
    tell(LogLevel::kError,
         failed ? "a write failed and is tried again later; other objects go on"
                : "a write was refused and is tried again later; other objects go on",
         write, why);
  }
  look_again(refusals_.held_until(one, what));
}

}  // namespace egw::runtime
