// See support.hpp.
#include "support.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

extern char** environ;

namespace egw::local::test {

Folder::Folder(const std::string& parent) {
  std::string name = parent + "/egw-local-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp " + name);
  path_ = name;
}

std::string Folder::in_memory() { return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"; }

Folder::~Folder() {
  std::error_code ec;
  std::filesystem::remove_all(path_, ec);
}

namespace {
sdk::ObjectKind kind_of(std::string_view group, std::string_view version, std::string_view kind,
                        std::string_view plural, bool namespaced) {
  sdk::ObjectKind k;
  k.group = group;
  k.version = version;
  k.kind = kind;
  k.plural = plural;
  k.namespaced = namespaced;
  return k;
}
constexpr std::string_view kGroup = "egressgateway.spidernet.io";

json parse(std::string_view text) { return text.empty() ? json() : json::parse(text); }

void take_object(void* ctx, std::uint64_t revision, egw_str text) {
  auto* answer = static_cast<Answer*>(ctx);
  answer->revision = revision;
  answer->object = parse(sdk::view(text));
  answer->objects.push_back(answer->object);
}
void take_warning(void* ctx, egw_str text) {
  static_cast<Answer*>(ctx)->warnings.emplace_back(sdk::view(text));
}
sdk::ObjectSink sink_to(Answer& answer) {
  return sdk::ObjectSink(egw_object_sink{&answer, take_object, take_warning});
}
}  // namespace

sdk::ObjectKind gateway() {
  return kind_of(kGroup, "v1beta1", "EgressGateway", "egressgateways", false);
}
sdk::ObjectKind policy() {
  return kind_of(kGroup, "v1beta1", "EgressPolicy", "egresspolicies", true);
}
sdk::ObjectKind node() { return kind_of("", "v1", "Node", "nodes", false); }
sdk::ObjectKind pod() { return kind_of("", "v1", "Pod", "pods", true); }
sdk::ObjectKind event() { return kind_of("", "v1", "Event", "events", true); }

sdk::StoreHost TestHost::services() {
  host_.struct_size = sizeof(host_);
  host_.base.struct_size = sizeof(host_.base);
  host_.base.ctx = this;
  host_.base.log = [](void* ctx, std::int32_t, egw_str message) {
    auto* self = static_cast<TestHost*>(ctx);
    const std::lock_guard lock(self->mutex_);
    self->logged_.emplace_back(sdk::view(message));
  };
  host_.admit_ctx = this;
  host_.admit = [](void* ctx, std::uint32_t op, const egw_object_kind*, egw_str before,
                   egw_str after, const egw_reader* reader, const egw_admission_sink* out) {
    auto* self = static_cast<TestHost*>(ctx);
    if (self->admit) {
      return self->admit(op, parse(sdk::view(before)), parse(sdk::view(after)), *reader, *out);
    }
    if (after.len != 0) out->object(out->ctx, after);
    return static_cast<int>(EGW_OK);
  };
  return sdk::StoreHost(&host_);
}

std::vector<std::string> TestHost::logged() {
  const std::lock_guard lock(mutex_);
  return logged_;
}

namespace {
std::string config_of(const std::string& path, json more) {
  more["path"] = path;
  return more.dump();
}
}  // namespace

TestStore::TestStore(const std::string& path, json more)
    : store(config_of(path, std::move(more)), host.services()) {}

Answer TestStore::write(sdk::WriteOp op, const sdk::ObjectKind& kind, const std::string& ns,
                        const std::string& name, const json& object, Options options) {
  const std::string text = object.is_null()     ? ""
                           : object.is_string() ? object.get<std::string>()
                                                : object.dump();
  sdk::Write w;
  w.op = op;
  w.kind = kind;
  w.ns = ns;
  w.name = name;
  w.object = text;
  w.expected_revision = options.revision;
  w.term = options.term;
  w.dry_run = options.dry_run;
  w.deadline = options.deadline;
  Answer answer;
  answer.status = store.write(w, sink_to(answer));
  return answer;
}

Answer TestStore::get(const sdk::ObjectKind& kind, const std::string& ns, const std::string& name) {
  Answer answer;
  answer.status = store.get(kind, ns, name, sink_to(answer));
  return answer;
}

Answer TestStore::list(const sdk::ObjectKind& kind, const std::string& ns,
                       const std::string& fields, const std::string& labels) {
  sdk::Query q;
  q.kind = kind;
  q.ns = ns;
  q.fields = fields;
  q.labels = labels;
  Answer answer;
  answer.status = store.list(q, sink_to(answer));
  return answer;
}

std::string Recorder::Event::text() const {
  const char* names[] = {"?", "SNAPSHOT", "UPSERT", "DELETE", "SYNCED", "DISCONNECTED", "REVISION"};
  std::string out = names[type];
  if (!name.empty()) out += " " + (ns.empty() ? "" : ns + "/") + name;
  return out;
}

Recorder::Recorder(LocalStore& store, const sdk::ObjectKind& kind, const std::string& ns,
                   const std::string& name, const std::string& fields, const std::string& labels)
    : store_(store) {
  sdk::Query q;
  q.kind = kind;
  q.ns = ns;
  q.name = name;
  q.fields = fields;
  q.labels = labels;
  const egw_event_sink sink{
      this, [](void* ctx, const egw_event* e) {
        auto* self = static_cast<Recorder*>(ctx);
        const std::lock_guard lock(self->mutex_);
        self->events_.push_back({static_cast<int>(e->type), e->revision,
                                 std::string(sdk::view(e->namespace_)),
                                 std::string(sdk::view(e->name)), std::string(sdk::view(e->object)),
                                 std::string(sdk::view(e->message))});
        self->news_.notify_all();
      }};
  number_ = store_.subscribe(q, sdk::EventSink(sink)).value();
}

Recorder::~Recorder() { store_.unsubscribe(number_); }

bool Recorder::wait(const std::function<bool(const Event&)>& wanted) {
  std::unique_lock lock(mutex_);
  return news_.wait_for(lock, 5s, [&] {
    while (looked_at_ < events_.size()) {
      if (wanted(events_[looked_at_++])) return true;
    }
    return false;
  });
}

bool Recorder::wait(const std::string& text) {
  return wait([&](const Event& e) { return e.text() == text; });
}

std::vector<std::string> Recorder::take() {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> out;
  for (const Event& e : events_) {
    if (e.type != EGW_EVENT_REVISION) out.push_back(e.text());
  }
  events_.clear();
  looked_at_ = 0;
  return out;
}

std::vector<Recorder::Event> Recorder::events() {
  const std::lock_guard lock(mutex_);
  return events_;
}

Process::Process(std::vector<std::string> arguments) {
  int out[2], in[2];
  if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(in, O_CLOEXEC) != 0) {
    throw std::runtime_error("pipe2");
  }
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in[0], 0);
  ::posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  arguments.insert(arguments.begin(), {"unit_local", "--role"});
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  const int error = ::posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(in[0]);
  ::close(out[1]);
  out_ = out[0];
  in_ = in[1];
  if (error != 0) throw std::runtime_error("posix_spawn");
}

Process::~Process() {
  if (pid_ > 0) {
    signal(SIGKILL);
    wait();
  }
  ::close(out_);
  ::close(in_);
}

std::string Process::line(std::chrono::milliseconds longest) {
  const auto until = std::chrono::steady_clock::now() + longest;
  for (;;) {
    if (const std::size_t end = buffer_.find('\n'); end != std::string::npos) {
      std::string out = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return out;
    }
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    struct pollfd fd = {out_, POLLIN, 0};
    if (left.count() <= 0 || ::poll(&fd, 1, static_cast<int>(left.count())) <= 0) return {};
    char chunk[4096];
    const ssize_t n = ::read(out_, chunk, sizeof(chunk));
    if (n <= 0) return {};
    buffer_.append(chunk, static_cast<std::size_t>(n));
  }
}

std::string Process::rest() {
  char chunk[4096];
  for (ssize_t n = 0; (n = ::read(out_, chunk, sizeof(chunk))) > 0;) {
    buffer_.append(chunk, static_cast<std::size_t>(n));
  }
  return std::exchange(buffer_, {});
}

void Process::say(const std::string& line) {
  const std::string text = line + "\n";
  if (::write(in_, text.data(), text.size()) < 0) throw std::runtime_error("write to process");
}

void Process::signal(int number) {
  if (pid_ > 0) ::kill(pid_, number);
}

void Process::stop() {
  signal(SIGSTOP);
  int status = 0;
  ::waitpid(pid_, &status, WUNTRACED);
}

int Process::wait() {
  int status = 0;
  if (pid_ <= 0 || ::waitpid(pid_, &status, 0) != pid_) return -1;
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values.at(static_cast<std::size_t>(q * static_cast<double>(values.size() - 1)));
}

}  // namespace egw::local::test
