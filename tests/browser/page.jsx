// A chat page as an application has it. Its address says where the server is, which transport to
// use and, from the first message on, which thread it shows: so it survives being reloaded.

import { useMessageMetadata, useStream } from "@langchain/react";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

const address = new URL(window.location.href);
const asked = Object.fromEntries(address.searchParams);
window.renderings = [];

const text = (content) =>
  typeof content === "string" ? content : content.map((block) => block.text ?? "").join("");

function remember(threadId) {
  address.searchParams.set("thread", threadId);
  window.history.replaceState(null, "", address);
}

function Message({ stream, message }) {
  const parent = useMessageMetadata(stream, message.id)?.parentCheckpointId;
  return <li data-parent={parent}>{text(message.content)}</li>;
}

function Chat() {
  const [draft, setDraft] = useState("");
  const stream = useStream({
    apiUrl: asked.api,
    assistantId: "chat",
    transport: asked.transport,
    threadId: asked.thread ?? null,
    onThreadId: remember,
  });
  const shown = stream.messages.map((message) => text(message.content));
  useEffect(() => {
    window.renderings.push(shown);
  }, [shown.join("\n")]);
  const send = (event) => {
    event.preventDefault();
    stream.submit({ messages: [{ type: "human", content: draft }] });
    setDraft("");
  };
  return (
    <main data-loading={stream.isLoading} data-ready={!stream.isThreadLoading}>
      <ol>
        {stream.messages.map((message) => (
          <Message key={message.id} stream={stream} message={message} />
        ))}
      </ol>
      {stream.interrupt && (
        <dialog open>
          <p>{stream.interrupt.value.question}</p>
          <button onClick={() => stream.respond("yes")}>Yes</button>
        </dialog>
      )}
      {stream.error ? <pre role="alert">{String(stream.error)}</pre> : null}
      <form onSubmit={send}>
        <input value={draft} onChange={(event) => setDraft(event.target.value)} />
        <button>Send</button>
      </form>
    </main>
  );
}

createRoot(document.getElementById("root")).render(<Chat />);
