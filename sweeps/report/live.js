// Served while the sweep runs: the page is loaded anew when there is news, and the reader's choices are kept.

const inputs = () => Array.from(document.querySelectorAll(".choice input, .legend input"));
const nameOfInput = (input) => `${input.closest("figure").id} ${input.name} ${input.value}`;

const kept = JSON.parse(sessionStorage.getItem("choices") ?? "{}");
for (const input of inputs()) input.checked = kept[nameOfInput(input)] ?? input.checked;

let version;
async function look() {
  try {
    const found = await (await fetch("version", { cache: "no-store" })).text();
    if (version !== undefined && found !== version) {
      const choices = Object.fromEntries(inputs().map((input) => [nameOfInput(input), input.checked]));
      sessionStorage.setItem("choices", JSON.stringify(choices));
      location.reload();
    }
    version = found;
    document.querySelector(".live").textContent = "live";
  } catch {
    document.querySelector(".live").textContent = "no longer served";
  }
  setTimeout(look, 1000);
}
look();
