"""Recording a module: traces and programs that hold for other sizes than the example's."""
