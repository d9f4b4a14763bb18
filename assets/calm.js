// Gives the exercises their pace. Without it their words stand there all the same.
(() => {
  const remanso = window.remanso;
  if (!remanso) return;
  const IN = 4, OUT = 6, BREATHS = 5, SECOND_MS = 1000;
  const write = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  // A label keeps its key, so that the language switch finds it.
  const label = (button, key) => { button.dataset.say = key; write(button, remanso.say(key)); };

  function breathe(box, button) {
    const lung = box.querySelector(".lung"), now = box.querySelector(".now");
    if (box.pace) return rest("");
    let second = 0;

    function rest(words) {
      clearInterval(box.pace);
      box.pace = null;
      lung.hidden = true;
      write(now, words);
      label(button, "safety.calm.start");
    }

    function beat() {
      if (!box.isConnected || !box.open) return rest("");
      if (second === BREATHS * (IN + OUT)) return rest(remanso.say("safety.calm.done"));
      const at = second % (IN + OUT), inward = at < IN;
      lung.dataset.phase = inward ? "in" : "out";
      write(now, remanso.say(inward ? "safety.calm.in" : "safety.calm.out"));
      write(lung.firstElementChild, String(inward ? at + 1 : at - IN + 1));
      second += 1;
    }

    lung.hidden = false;
    label(button, "safety.calm.stop");
    box.pace = setInterval(beat, SECOND_MS);
    requestAnimationFrame(beat); // a frame later, so that the circle is seen to grow
  }

  function sense(box, button) {
    const list = box.querySelector("ol"), now = box.querySelector(".now");
    const step = Number(box.dataset.step || 0), last = step === list.children.length;
    box.dataset.step = last ? 0 : step + 1;
    list.hidden = !last;
    write(now, last ? remanso.say("safety.calm.done") : list.children[step].textContent);
    label(button, last ? "safety.calm.step" : "safety.calm.next");
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".calm button"), box = button?.closest("[data-calm]");
    if (box) (box.dataset.calm === "breathe" ? breathe : sense)(box, button);
  });
})();
