// Starts the page.

state = stateOf(location.hash.slice(1));
startSummary();
startControls();
startGrid();
startClasses();
startLarge();
addEventListener("hashchange", readAddress);
