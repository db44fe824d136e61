// A page with useStream: rendered in a DOM, it holds a conversation.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { JSDOM } from "jsdom";
import { TRANSPORTS, url, until, webSocketFactory } from "./helpers.mjs";

const dom = new JSDOM("<!doctype html><body></body>", { url: "http://localhost/" });
globalThis.window = dom.window;
globalThis.document = dom.window.document;
globalThis.navigator ??= dom.window.navigator;
after(() => dom.window.close());

const { createElement: h } = await import("react");
const { createRoot } = await import("react-dom/client");
const { useStream, useMessageMetadata } = await import("@langchain/react");

const text = (content) =>
  typeof content === "string" ? content : content.map((block) => block.text ?? "").join("");

function Message({ stream, message }) {
  const metadata = useMessageMetadata(stream, message.id);
  return h("li", { "data-parent": metadata?.parentCheckpointId ?? "" }, text(message.content));
}

function Page({ options, hold }) {
  const stream = useStream({ apiUrl: url, webSocketFactory, ...options });
  hold.stream = stream;
  hold.texts ??= new Set();
  for (const message of stream.messages) hold.texts.add(text(message.content));
  return h(
    "main",
    { "data-loading": String(stream.isLoading) },
    h("ul", null, stream.messages.map((m) => h(Message, { key: m.id, stream, message: m }))),
    h("q", null, stream.interrupt ? JSON.stringify(stream.interrupt.value) : ""),
    h("p", null, JSON.stringify(stream.values)),
  );
}

function mount(options) {
  const element = document.createElement("div");
  const hold = {};
  const root = createRoot(element);
  root.render(h(Page, { options, hold }));
  const items = () => [...element.querySelectorAll("li")].map((item) => item.textContent);
  return { element, hold, items, root };
}

for (const transport of TRANSPORTS) {
  test(`${transport}: tokens are shown as they come, and the turn at its end`, async () => {
    const { hold, items, root, element } = mount({ assistantId: "slow_chat", transport });
    await until(() => hold.stream && !hold.stream.isThreadLoading, "the page");
    hold.stream.submit({ messages: [{ type: "human", content: "hi" }] });
    await until(() => items()[1] === "one two three", "the answer");
    assert.ok(hold.texts.has("one") && hold.texts.has("one two"), [...hold.texts].join("|"));
    await until(() => element.firstChild.dataset.loading === "false", "the end of loading");
    assert.deepEqual(items(), ["hi", "one two three"]);
    const parents = [...element.querySelectorAll("li")].map((item) => item.dataset.parent);
    assert.ok(parents[1], "the answer knows the checkpoint before it");
    root.unmount();
  });

  test(`${transport}: an interrupt is shown, answered, and gone`, async () => {
    const { hold, root, element } = mount({ assistantId: "ask", transport });
    await until(() => hold.stream && !hold.stream.isThreadLoading, "the page");
    hold.stream.submit({ items: [] });
    const asked = () => element.querySelector("q").textContent;
    await until(() => asked() === '{"question":"name"}', "the question");
    await hold.stream.respond("Ada");
    await until(
      () => element.querySelector("p").textContent.includes("name=Ada") && !asked(),
      "the answer in the values",
    );
    root.unmount();
  });

  test(`${transport}: a page that is opened in mid-run shows all of it`, async () => {
    const first = mount({ assistantId: "slow_chat", transport });
    await until(() => first.hold.stream && !first.hold.stream.isThreadLoading, "the page");
    first.hold.stream.submit({ messages: [{ type: "human", content: "hi" }] });
    await until(() => first.items()[1]?.startsWith("one"), "the first token");
    const threadId = first.hold.stream.threadId;
    first.root.unmount();
    const second = mount({ assistantId: "slow_chat", transport, threadId });
    await until(() => second.element.firstChild?.dataset.loading === "true", "loading");
    await until(() => second.items()[1] === "one two three", "the rest");
    await until(() => second.element.firstChild.dataset.loading === "false", "the end");
    assert.deepEqual(second.items(), ["hi", "one two three"]);
    second.root.unmount();
  });
}
