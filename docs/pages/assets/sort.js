// A click on the head of a column sorts the table by it, and once more in reverse.
document.addEventListener("click", (event) => {
  const head = event.target.closest("article table th");
  if (!head) return;
  const column = [...head.parentNode.children].indexOf(head);
  const body = head.closest("table").tBodies[0];
  const rows = [...body.rows];
  const text = (row) => row.cells[column].textContent;
  const order = head.dataset.order === "1" ? -1 : 1;
  head.dataset.order = order;
  rows.sort((a, b) => order * text(a).localeCompare(text(b), "en", { numeric: true }));
  body.append(...rows);
});
